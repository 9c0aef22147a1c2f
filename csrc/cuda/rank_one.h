// Planar and radial maps of rows: cpu/rank_one.h on CUDA devices. All addresses are there.
#pragma once

#include "cuda/kernels.h"
#include "cuda/shape.h"

namespace bsl {

struct RankOneCall {
  DeviceShape shape;  // of the rows
  int64_t width;
  Operand rows[3];     // z, u and w, or z, z0 and none
  Operand scalars[2];  // b and none, or raw_alpha and raw_beta
};

struct RankOneForward : RankOneCall {
  void* y;
  void* log_det;
};

struct RankOneBackward : RankOneCall {
  Operand grad_y;  // rows
  Operand grad_log_det;
  void* grads[5];  // of the rows and the scalars; null where not wanted
  // Of rows that serve all: a sum for each chunk, [rank_one_chunks(), width].
  double* sums[3];
  // Then room for what the sums are made with, kRankOneCoefficients numbers for each row.
  void* coefficients;
};

constexpr int kRankOneCoefficients = 5;
constexpr int64_t kRankOneChunk = 256;  // rows
inline int64_t rank_one_chunks(int64_t rows) { return (rows + kRankOneChunk - 1) / kRankOneChunk; }

using RankOneKernels = RowKernels<RankOneForward, RankOneBackward>;

namespace cuda {
extern const RankOneKernels planar_kernels;
extern const RankOneKernels radial_kernels;
}  // namespace cuda

}  // namespace bsl
