// The kernels of an op that is in no table.
#pragma once

#include <cuda_runtime_api.h>

namespace bsl {

// Launch on a stream, and leave errors to cudaGetLastError.
template <typename Forward, typename Backward>
struct KernelsOf {
  void (*forward_float)(const Forward&, cudaStream_t);
  void (*forward_double)(const Forward&, cudaStream_t);
  void (*backward_float)(const Backward&, cudaStream_t);
  void (*backward_double)(const Backward&, cudaStream_t);
};

}  // namespace bsl
