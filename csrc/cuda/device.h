// A CUDA device as the device of a call, for bindings that serve the CPU too: see cpu/device.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/layout.h"
#include "cuda/rows.h"
#include "cuda/shape.h"

// Where bindings for the CPU and for CUDA devices share little, #ifndef BSL_CUDA has those for the
// CPU, and its #else those for CUDA devices.
#define BSL_CUDA
// What cpu/isa.h selects by the instruction set.
#define BSL_SELECT(name) (::bsl::cuda::name)

namespace bsl {

// Kernels cut calls themselves. They leave sums to others, so that they need no memory for them.
inline void cut_rows(DeviceShape&, int64_t, Reduction) {}
inline void cut_elements(DeviceShape&, int64_t, Reduction) {}
template <typename Call>
std::unique_ptr<double[]> add_partials(Call&) {
  return nullptr;
}
inline int64_t n_sums(const DeviceShape& shape) {
  return (shape.numel + kSumChunk - 1) / kSumChunk;
}
inline void expect_writes(const void*, int64_t) {}

class Device {
 public:
  // `stream` is torch's handle.
  explicit Device(uintptr_t stream) : stream_(reinterpret_cast<cudaStream_t>(stream)) {}

  // Launches a kernel. Throws the error of the launch, if any, naming the op and its shape:
  // `sizes`, and the length of rows if that is not one of them.
  template <typename Call>
  void run(void (*kernel)(const Call&, cudaStream_t), const Call& call, const char* name,
           const std::vector<int64_t>& sizes, int64_t columns = 0) const {
    kernel(call, stream_);
    const cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return;
    std::string shape;
    for (const int64_t size : sizes) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    if (columns > 0) shape += (shape.empty() ? "" : ", ") + std::to_string(columns);
    throw std::runtime_error(std::string(name) + " of shape [" + shape +
                             "]: CUDA launch failed: " + cudaGetErrorString(error));
  }

 private:
  cudaStream_t stream_;
};

// The module's function takes the stream behind the arguments.
template <typename R, typename... Args>
auto on_device(R (*f)(const Device&, Args...)) {
  return [f](Args... args, uintptr_t stream) -> R {
    return f(Device(stream), std::forward<Args>(args)...);
  };
}

}  // namespace bsl
