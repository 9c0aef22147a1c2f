// Rational-quadratic splines: cpu/rational_quadratic.h on CUDA devices. All addresses are there.
#pragma once

#include "core/bijectors/rational_quadratic.h"
#include "cuda/kernels.h"
#include "cuda/shape.h"

namespace bsl {

struct SplineCall : SplineSettings {
  DeviceShape shape;
  Operand x;
  // Widths, heights and slopes: one row of contiguous numbers per element, at the strides that the
  // operand has over `shape`.
  Operand rows[3];
};

struct SplineForward : SplineCall {
  // Where there are no tails and an x lies outside, both are NaN.
  void* y;
  void* log_det;  // of every element
};

struct SplineBackward : SplineCall {
  Operand grad_y, grad_log_det;  // broadcast to the call's shape
  // Null: not wanted. Those of the parameters have one contiguous row per element.
  void* grad_x;
  void* grad_rows[3];
};

using SplineKernels = RowKernels<SplineForward, SplineBackward>;

namespace cuda {
extern const SplineKernels spline_kernels;
}  // namespace cuda

}  // namespace bsl
