// The importance-weighted bound: the logarithm of the mean of weights, given their logarithms.
#pragma once

#include "core/distributions/iwae_bound.h"
#include "cpu/isa.h"

namespace bsl {

struct IwaeBoundKernels {
  void (*forward_float)(const IwaeBoundForward&);
  void (*forward_double)(const IwaeBoundForward&);
  void (*backward_float)(const IwaeBoundBackward&);
  void (*backward_double)(const IwaeBoundBackward&);
};
BSL_DECLARE_KERNELS(IwaeBoundKernels, iwae_bound_kernels)

}  // namespace bsl
