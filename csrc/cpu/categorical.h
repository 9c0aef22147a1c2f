// The log probability of classes under categorical distributions given by their logits.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct CategoricalForward {
  ChunkPlan plan;  // of rows
  int64_t classes;
  const void* logits;    // [rows, classes]
  const int64_t* index;  // [rows]
  Reduction reduction;
  void* log_prob;
  double* partials;  // plan.n_partials()
  int* bad_index;    // set to 1 if an index is not a class
};

struct CategoricalBackward {
  ChunkPlan plan;
  Shape shape;  // of the rows, for grad's sake
  int64_t classes;
  const void* logits;
  const int64_t* index;
  Operand grad;  // broadcast to the rows
  void* grad_logits;
};

struct CategoricalKernels {
  void (*forward_float)(const CategoricalForward&);
  void (*forward_double)(const CategoricalForward&);
  void (*backward_float)(const CategoricalBackward&);
  void (*backward_double)(const CategoricalBackward&);
};
BSL_DECLARE_KERNELS(CategoricalKernels, categorical_kernels)

}  // namespace bsl
