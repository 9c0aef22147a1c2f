// Rational-quadratic splines, their inverses and log-determinants.
#pragma once

#include "core/bijectors/rational_quadratic.h"
#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

// A spline's element is the work of some dozen of others'.
constexpr int64_t kSplineChunk = 2 * kBlock;

struct SplineCall : SplineSettings {
  Shape shape;
  ChunkPlan plan;
  Operand x;
  // One row of contiguous numbers per element, at the strides that the operand has over `shape`.
  Operand widths, heights, derivatives;
};

struct SplineForward : SplineCall {
  void* y;
  Reduction reduction;
  void* log_det;
  double* partials;  // plan.n_partials()
  int* outside;      // set to 1 if there are no tails and an x lies outside
};

struct SplineBackward : SplineCall {
  Operand grad_y, grad_log_det;  // broadcast to the call's shape
  // Null: not wanted. Those of the parameters have one contiguous row per element.
  void *grad_x, *grad_widths, *grad_heights, *grad_derivatives;
};

struct SplineKernels {
  void (*forward_float)(const SplineForward&);
  void (*forward_double)(const SplineForward&);
  void (*backward_float)(const SplineBackward&);
  void (*backward_double)(const SplineBackward&);
};
BSL_DECLARE_KERNELS(SplineKernels, spline_kernels)

}  // namespace bsl
