// Ops on elements that each have a mixture of logistic distributions of their own, or other rows of
// parameters.
#pragma once

#include "core/pointwise.h"
#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

// An element is the work of dozens.
constexpr int64_t kMixtureChunk = 2 * kBlock;

struct MixtureCall {
  Shape shape;
  ChunkPlan plan;
  Operand x;
  // One row of contiguous numbers per element, at the strides that the operand has over `shape`. Of
  // an op with fewer of them, the first are there, whatever they are called.
  Operand logits, loc, log_scale;
  int components;
  double numbers[kMaxNumbers];
};

struct MixtureForward : MixtureCall {
  void* y;  // null for a density
  Reduction reduction;
  void* log;
  double* partials;  // plan.n_partials()
};

struct MixtureBackward : MixtureCall {
  Operand grad_y, grad_log;  // broadcast to the call's shape
  // Null: not wanted. Those of the parameters have one contiguous row per element.
  void *grad_x, *grad_logits, *grad_loc, *grad_log_scale;
};

struct MixtureKernels {
  void (*forward_float)(const MixtureForward&);
  void (*forward_double)(const MixtureForward&);
  void (*backward_float)(const MixtureBackward&);
  void (*backward_double)(const MixtureBackward&);
};
BSL_DECLARE_KERNELS(MixtureKernels, mixture_logistic_kernels)
BSL_DECLARE_KERNELS(MixtureKernels, mixture_logistic_inverse_kernels)
BSL_DECLARE_KERNELS(MixtureKernels, discretized_logistic_mixture_kernels)
BSL_DECLARE_KERNELS(MixtureKernels, deep_sigmoidal_kernels)
BSL_DECLARE_KERNELS(MixtureKernels, deep_sigmoidal_inverse_kernels)
BSL_DECLARE_KERNELS(MixtureKernels, bernstein_kernels)
BSL_DECLARE_KERNELS(MixtureKernels, bernstein_inverse_kernels)

}  // namespace bsl
