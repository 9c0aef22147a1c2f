// Ops on elements that each have a mixture of logistic distributions of their own: cpu/mixture.h on
// CUDA devices. All addresses are there.
#pragma once

#include <cuda_runtime_api.h>

#include "core/layout.h"
#include "core/pointwise.h"

namespace bsl {

constexpr int kMaxComponents = 64;

struct MixtureCall {
  Shape shape;
  Operand x;
  // Logits, locations and scales: one row of contiguous numbers per element, at the strides that
  // the operand has over `shape`.
  Operand rows[3];
  int components;
  double numbers[kMaxNumbers];
};

struct MixtureForward : MixtureCall {
  void* y;    // null for a density
  void* log;  // of every element
};

struct MixtureBackward : MixtureCall {
  Operand grad_y, grad_log;  // broadcast to the call's shape
  // Null: not wanted. Those of the parameters have one contiguous row per element.
  void* grad_x;
  void* grad_rows[3];
};

// Launch on a stream, and leave errors to cudaGetLastError.
struct MixtureKernels {
  void (*forward_float)(const MixtureForward&, cudaStream_t);
  void (*forward_double)(const MixtureForward&, cudaStream_t);
  void (*backward_float)(const MixtureBackward&, cudaStream_t);
  void (*backward_double)(const MixtureBackward&, cudaStream_t);
};

namespace cuda {
extern const MixtureKernels mixture_logistic_kernels;
extern const MixtureKernels mixture_logistic_inverse_kernels;
extern const MixtureKernels discretized_logistic_mixture_kernels;
extern const MixtureKernels deep_sigmoidal_kernels;
extern const MixtureKernels deep_sigmoidal_inverse_kernels;
}  // namespace cuda

}  // namespace bsl
