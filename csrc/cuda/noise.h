// Arrays of random numbers on CUDA devices, bit for bit those of cpu/noise.h as far as bits go.
#pragma once

#include <cstdint>

namespace bsl::cuda {

enum class NoiseKind { bits, uniform, normal };

struct NoiseRange {
  int64_t n;
  uint64_t seed;
  const int64_t* seed_tensor;  // on the device; null: `seed` counts
  uint64_t stream, first;
};

// Returns null, or what went wrong with the launch. `is_double` is ignored for bits.
const char* fill_noise(NoiseKind kind, void* out, bool is_double, const NoiseRange& range,
                       uintptr_t cuda_stream);

}  // namespace bsl::cuda
