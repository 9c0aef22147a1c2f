// Samples of Gumbel-softmax distributions given by logits, and their gradient.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

// Everything is contiguous. Row r is drawn with the logits of row r % logit_rows.
struct GumbelSoftmaxForward {
  ChunkPlan plan;  // of rows
  int64_t logit_rows, classes;
  const void* logits;
  double temperature;
  uint64_t seed, stream;
  bool hard;
  void* sample;
};

struct GumbelSoftmaxBackward {
  ChunkPlan plan;
  int64_t logit_rows, classes;
  const void* logits;
  double temperature;
  uint64_t seed, stream;
  const void* grad;
  void* grad_logits;  // one row for each row of the samples
};

struct GumbelSoftmaxKernels {
  void (*forward_float)(const GumbelSoftmaxForward&);
  void (*forward_double)(const GumbelSoftmaxForward&);
  void (*backward_float)(const GumbelSoftmaxBackward&);
  void (*backward_double)(const GumbelSoftmaxBackward&);
};
BSL_DECLARE_KERNELS(GumbelSoftmaxKernels, gumbel_softmax_kernels)

}  // namespace bsl
