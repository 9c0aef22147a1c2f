// The CUDA kernels of all pointwise ops, see core/pointwise.h.
#pragma once

#include <cuda_runtime_api.h>

#include "core/pointwise.h"
#include "cuda/shape.h"
#include "pointwise/ops.h"

namespace bsl {

// The plan by which threads share the elements and their sums. A unit is a whole segment or a piece
// of one, and belongs to `lanes` threads of a warp. The plan depends only on sizes, so that sums do
// not depend on the device.
struct UnitPlan {
  int64_t numel = 0;
  int64_t segment = 1;  // elements summed into one result; without sums, elements of one unit
  int64_t piece = 1;    // elements per unit
  int64_t pieces = 1;   // units per segment
  int64_t units = 0;
  int lanes = 1;

  UnitPlan() = default;
  // `row` is the length of the last dimension.
  UnitPlan(int64_t numel, int64_t row, Reduction reduction);

  // The number of partial sums, for which the caller provides memory on the device.
  int64_t n_partials() const { return pieces > 1 ? units : 0; }
};

struct PointwiseForward {
  DeviceShape shape;
  bool whole_groups;  // whether all operands and results have_whole_groups (cuda/shape.h)
  UnitPlan plan;
  Operand inputs[kMaxInputs];
  double numbers[kMaxNumbers];
  const int64_t* seed;  // on the device, like all addresses
  uint64_t stream;
  Reduction reduction;
  void* value;       // for ops with a value
  void* log;         // for ops with a logarithm; in the computing type, also for 16-bit tensors
  double* partials;  // plan.n_partials() numbers
};

struct PointwiseBackward {
  DeviceShape shape;
  bool whole_groups;
  Operand inputs[kMaxInputs];
  double numbers[kMaxNumbers];
  const int64_t* seed;
  uint64_t stream;
  Operand grad_value, grad_log;  // broadcast to the call's shape, stored as value and log are
  Grad grads[kMaxInputs];
};

// One variant of an op: a function for each dtype, in the order of kDTypeNames in
// bindings/operands.h. Each launches on a stream and leaves errors to cudaGetLastError.
struct PointwiseVariant {
  int passes_on;
  void (*forward[4])(const PointwiseForward&, cudaStream_t);
  void (*backward[4])(const PointwiseBackward&, cudaStream_t);
};

constexpr int kMaxVariants = 20;

struct PointwiseKernels {
  int inputs;
  Results results;
  Noise noise;
  bool samples;  // false: here a sample is an element
  int n_variants;
  PointwiseVariant variants[kMaxVariants];
};

#define BSL_DECLARE(name)                       \
  namespace cuda {                              \
  extern const PointwiseKernels name##_kernels; \
  }
BSL_POINTWISE_OPS(BSL_DECLARE)
BSL_DECLARE(row_sums)  // sums of other ops' results
#undef BSL_DECLARE

}  // namespace bsl
