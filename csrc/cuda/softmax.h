// The CUDA kernels of all ops with a softmax, see core/softmax_call.h.
#pragma once

#include <cuda_runtime_api.h>

#include "core/softmax_call.h"
#include "cuda/shape.h"
#include "rows/ops.h"

namespace bsl {

using SoftmaxCall = SoftmaxCallOf<DeviceShape>;
using SoftmaxForward = SoftmaxForwardOf<DeviceShape>;
using SoftmaxBackward = SoftmaxBackwardOf<DeviceShape>;

// Each function launches on a stream and leaves errors to cudaGetLastError.
struct SoftmaxKernels {
  void (*forward_float)(const SoftmaxForward&, cudaStream_t);
  void (*forward_double)(const SoftmaxForward&, cudaStream_t);
  void (*backward_float)(const SoftmaxBackward&, cudaStream_t);
  void (*backward_double)(const SoftmaxBackward&, cudaStream_t);
};

#define BSL_DECLARE(name)                     \
  namespace cuda {                            \
  extern const SoftmaxKernels name##_kernels; \
  }
BSL_SOFTMAX_OPS(BSL_DECLARE)
#undef BSL_DECLARE

}  // namespace bsl
