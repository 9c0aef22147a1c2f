// The functions of core/math.h and core/special.h over arrays, vectorised as in kernels, for tests
// and timings.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace bsl {

enum class MathFunction {
  exp,
  expm1,
  log,
  log1p,
  sigmoid,
  softplus,
  tanh,
  sinpi,
  cospi,
  log_factorial,
  digamma_of_next,
  log_gamma_half_step,
  log_gamma_half_step_slope,
  log_one_plus_square
};

struct MathKernels {
  void (*apply_float)(MathFunction function, const float* x, float* y, int64_t n);
  void (*apply_double)(MathFunction function, const double* x, double* y, int64_t n);
};
BSL_DECLARE_KERNELS(MathKernels, math_kernels)

}  // namespace bsl
