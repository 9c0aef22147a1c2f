// The importance-weighted bound: the logarithm of the mean of weights, given their logarithms.
#pragma once

#include "core/distributions/importance.h"
#include "cpu/isa.h"

namespace bsl {

struct ImportanceKernels {
  void (*forward_float)(const ImportanceForward&);
  void (*forward_double)(const ImportanceForward&);
  void (*backward_float)(const ImportanceBackward&);
  void (*backward_double)(const ImportanceBackward&);
};
BSL_DECLARE_KERNELS(ImportanceKernels, importance_kernels)

}  // namespace bsl
