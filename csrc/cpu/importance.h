// The importance-weighted bound: the logarithm of the mean of weights, given their logarithms.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace bsl {

// Weights are contiguous, [outer, samples, inner]; bounds and their gradients [outer, inner].
struct ImportanceForward {
  int64_t outer, samples, inner;
  const void* log_weights;
  void* bound;
};

// The gradient of a log weight is `grad` times its normalised weight, which may be squared.
struct ImportanceBackward {
  int64_t outer, samples, inner;
  const void* log_weights;
  const void* grad;
  bool squared;
  void* grad_log_weights;
};

struct ImportanceKernels {
  void (*forward_float)(const ImportanceForward&);
  void (*forward_double)(const ImportanceForward&);
  void (*backward_float)(const ImportanceBackward&);
  void (*backward_double)(const ImportanceBackward&);
};
BSL_DECLARE_KERNELS(ImportanceKernels, importance_kernels)

}  // namespace bsl
