// Softmaxes of rows and what is made of them: cpu/categorical.h, cpu/gumbel_softmax.h and
// cpu/iwae_bound.h on CUDA devices. All addresses are there, and all arrays but `grad` of the
// categorical family are contiguous.
#pragma once

#include "core/distributions/iwae_bound.h"
#include "cuda/kernels.h"
#include "cuda/shape.h"

namespace bsl {

struct CategoricalForward {
  int64_t rows, classes;
  const void* logits;    // [rows, classes]
  const int64_t* index;  // [rows]
  void* log_prob;        // [rows]; NaN where an index is not a class
};

struct CategoricalBackward {
  DeviceShape shape;  // of the rows, for grad's sake
  int64_t classes;
  const void* logits;
  const int64_t* index;
  Operand grad;  // broadcast to the rows
  void* grad_logits;
};

// Row r is drawn with the logits of row r % logit_rows.
struct GumbelSoftmaxCall {
  int64_t rows, logit_rows, classes;
  const void* logits;
  double temperature;
  const int64_t* seed;
  uint64_t stream;
};

struct GumbelSoftmaxForward : GumbelSoftmaxCall {
  bool hard;
  void* sample;
};

struct GumbelSoftmaxBackward : GumbelSoftmaxCall {
  const void* grad;
  void* grad_logits;  // of every row
};

namespace cuda {
extern const KernelsOf<CategoricalForward, CategoricalBackward> categorical_kernels;
extern const KernelsOf<GumbelSoftmaxForward, GumbelSoftmaxBackward> gumbel_softmax_kernels;
extern const KernelsOf<IwaeBoundForward, IwaeBoundBackward> iwae_bound_kernels;
}  // namespace cuda

}  // namespace bsl
