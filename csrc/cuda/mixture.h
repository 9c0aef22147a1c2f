// Ops on elements that each have a mixture of logistic distributions, or a polynomial, of their
// own: cpu/mixture.h on CUDA devices. All addresses are there.
#pragma once

#include "core/pointwise.h"
#include "cuda/kernels.h"
#include "cuda/shape.h"

namespace bsl {

struct MixtureCall {
  DeviceShape shape;
  Operand x;
  // Logits, locations and scales, or coefficients alone: one row of contiguous numbers per element,
  // at the strides that the operand has over `shape`.
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

using MixtureKernels = RowKernels<MixtureForward, MixtureBackward>;

namespace cuda {
extern const MixtureKernels mixture_logistic_kernels;
extern const MixtureKernels mixture_logistic_inverse_kernels;
extern const MixtureKernels discretized_logistic_mixture_kernels;
extern const MixtureKernels deep_sigmoidal_kernels;
extern const MixtureKernels deep_sigmoidal_inverse_kernels;
extern const MixtureKernels bernstein_kernels;
extern const MixtureKernels bernstein_inverse_kernels;
}  // namespace cuda

}  // namespace bsl
