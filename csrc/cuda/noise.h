// Arrays of random numbers on CUDA devices, with the numbers of cpu/noise.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bsl {

struct NoiseCall {
  int64_t n;
  const int64_t* seed;  // on the device
  uint64_t stream;
  void* out;
};

// For each dtype, in the order of kDTypeNames in bindings/operands.h. They launch on a stream
// and leave errors to cudaGetLastError.
using NoiseKernels = void (*const[4])(const NoiseCall&, cudaStream_t);

namespace cuda {
extern NoiseKernels uniform_kernels;
extern NoiseKernels normal_kernels;
}  // namespace cuda

}  // namespace bsl
