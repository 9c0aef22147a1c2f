// The log density of normal distributions.
#pragma once

#include "core/distributions/normal_log_prob.h"
#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct NormalLogProbForward {
  Shape shape;
  ChunkPlan plan;
  Operand x, loc, raw_scale;
  Parametrization parametrization;
  Reduction reduction;
  void* log_prob;
  double* partials;  // plan.n_partials()
  int* bad_scale;    // set to 1 if a scale is negative
};

struct NormalLogProbBackward {
  Shape shape;
  ChunkPlan plan;
  Operand x, loc, raw_scale;
  Parametrization parametrization;
  Operand grad;                              // broadcast to the call's shape
  void *grad_x, *grad_loc, *grad_raw_scale;  // null: not wanted
};

struct NormalLogProbKernels {
  void (*forward_float)(const NormalLogProbForward&);
  void (*forward_double)(const NormalLogProbForward&);
  void (*backward_float)(const NormalLogProbBackward&);
  void (*backward_double)(const NormalLogProbBackward&);
};
BSL_DECLARE_KERNELS(NormalLogProbKernels, normal_log_prob_kernels)

}  // namespace bsl
