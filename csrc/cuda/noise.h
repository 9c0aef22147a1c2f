// Arrays of random numbers on CUDA devices, bit for bit those of cpu/noise.h as far as bits go.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bsl::cuda {

enum class NoiseKind { bits, uniform, normal };

struct NoiseRange {
  int64_t n;
  uint64_t seed;
  const int64_t* seed_tensor;  // on the device; null: `seed` counts
  uint64_t stream, first;
};

// Leaves errors to cudaGetLastError. `is_double` is ignored for bits.
void fill_noise(NoiseKind kind, void* out, bool is_double, const NoiseRange& range,
                cudaStream_t stream);

}  // namespace bsl::cuda
