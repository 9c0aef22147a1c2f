// Streams and errors, for the bindings of all CUDA kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace bsl::cuda {

// The stream of torch's handle.
inline cudaStream_t stream_of(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

// Throws the error of the last launch, if any, naming the op and its shape.
inline void check_launch(const char* name, const std::vector<int64_t>& sizes) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  std::string shape;
  for (const int64_t size : sizes) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
  throw std::runtime_error(std::string(name) + " of shape [" + shape +
                           "]: CUDA launch failed: " + cudaGetErrorString(error));
}

}  // namespace bsl::cuda
