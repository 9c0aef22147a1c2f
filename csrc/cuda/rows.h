// The CUDA kernels of all ops over rows, see core/rows.h.
#pragma once

#include <cuda_runtime_api.h>

#include "core/rows.h"
#include "cuda/shape.h"
#include "rows/ops.h"

namespace bsl {

using RowForward = RowForwardOf<DeviceShape>;
using RowBackward = RowBackwardOf<DeviceShape>;

// Elements whose gradients are added up together where one row serves them all.
constexpr int64_t kSumChunk = 256;

// One variant of an op. Each function launches on a stream and leaves errors to cudaGetLastError.
struct RowVariant {
  void (*forward_float)(const RowForward&, cudaStream_t);
  void (*forward_double)(const RowForward&, cudaStream_t);
  void (*backward_float)(const RowBackward&, cudaStream_t);
  void (*backward_double)(const RowBackward&, cudaStream_t);
};

constexpr int kMaxRowVariants = 8;

struct RowKernels {
  RowSignature signature;
  int n_variants;
  RowVariant variants[kMaxRowVariants];
};

#define BSL_DECLARE(name)                 \
  namespace cuda {                        \
  extern const RowKernels name##_kernels; \
  }
BSL_ROW_OPS(BSL_DECLARE)
#undef BSL_DECLARE

}  // namespace bsl
