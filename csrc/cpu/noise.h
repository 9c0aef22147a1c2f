// Arrays of random numbers: the elements [first, first + n) of a seed's stream.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace bsl {

struct NoiseRange {
  int64_t n;
  uint64_t seed, stream, first;
};

struct NoiseKernels {
  void (*bits)(uint32_t* out, const NoiseRange& range);  // four words per counter
  void (*uniform_float)(float* out, const NoiseRange& range);
  void (*uniform_double)(double* out, const NoiseRange& range);
  void (*normal_float)(float* out, const NoiseRange& range);
  void (*normal_double)(double* out, const NoiseRange& range);
};
BSL_DECLARE_KERNELS(NoiseKernels, noise_kernels)

}  // namespace bsl
