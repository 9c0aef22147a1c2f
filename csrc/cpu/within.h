// Whether all numbers of an array lie in an interval, which NaN does not.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace bsl {

struct WithinKernels {
  bool (*within_float)(const float* x, int64_t n, float low, float high);
  bool (*within_double)(const double* x, int64_t n, double low, double high);
};
BSL_DECLARE_KERNELS(WithinKernels, within_kernels)

}  // namespace bsl
