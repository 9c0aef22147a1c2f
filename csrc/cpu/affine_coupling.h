// The affine map of coupling layers, its inverse and their log-determinants.
#pragma once

#include "core/bijectors/affine_coupling.h"
#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct AffineForward {
  Shape shape;
  ChunkPlan plan;
  Operand x, shift, raw_scale;
  ScaleFn scale_fn;
  bool inverse;
  void* y;
  Reduction reduction;
  void* log_det;
  double* partials;  // plan.n_partials()
};

struct AffineBackward {
  Shape shape;
  ChunkPlan plan;
  Operand x, shift, raw_scale;
  ScaleFn scale_fn;
  bool inverse;
  Operand grad_y, grad_log_det;                // broadcast to the call's shape
  void *grad_x, *grad_shift, *grad_raw_scale;  // null: not wanted
};

struct AffineKernels {
  void (*forward_float)(const AffineForward&);
  void (*forward_double)(const AffineForward&);
  void (*backward_float)(const AffineBackward&);
  void (*backward_double)(const AffineBackward&);
};
BSL_DECLARE_KERNELS(AffineKernels, affine_kernels)

}  // namespace bsl
