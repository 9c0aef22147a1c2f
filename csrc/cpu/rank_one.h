// Planar and radial maps of rows.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct RankOneCall {
  ChunkPlan plan;  // of rows
  Shape shape;     // of the rows
  int64_t width;
  Operand z, first, second;  // rows: u and w, or z0 and none
  Operand scalars[2];        // b and none, or raw_alpha and raw_beta
};

struct RankOneForward : RankOneCall {
  void* y;
  void* log_det;
};

struct RankOneBackward : RankOneCall {
  Operand grad_y;  // rows
  Operand grad_log_det;
  void* grads[5];  // of z, first, second and the scalars; null where not wanted
  // Of first and second, where one row serves all: a sum for each chunk, [plan.n_chunks, width],
  // zero at the start.
  double* sums[3];
};

struct RankOneKernels {
  void (*forward_float)(const RankOneForward&);
  void (*forward_double)(const RankOneForward&);
  void (*backward_float)(const RankOneBackward&);
  void (*backward_double)(const RankOneBackward&);
};
BSL_DECLARE_KERNELS(RankOneKernels, planar_kernels)
BSL_DECLARE_KERNELS(RankOneKernels, radial_kernels)

}  // namespace bsl
