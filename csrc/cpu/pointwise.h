// The CPU's kernels of all pointwise ops, see core/pointwise.h.
#pragma once

#include "core/pointwise.h"
#include "cpu/isa.h"
#include "cpu/layout.h"
#include "pointwise/ops.h"

namespace bsl {

// A call may ask for several samples of each element if the op `samples`. Values and their
// gradients are then [n_samples, *shape], and everything else has the shape.
struct PointwiseForward {
  Shape shape;
  int64_t n_samples;
  ChunkPlan plan;
  Storage storage;  // of the tensors and the value; the logarithm's is native
  Operand inputs[kMaxInputs];
  double numbers[kMaxNumbers];
  uint64_t seed, stream;
  Reduction reduction;
  void* value;       // for ops that have one
  void* log;         // likewise
  double* partials;  // plan.n_partials()
  int* invalid;      // gets the bits of inputs that are outside their domain
};

struct PointwiseBackward {
  Shape shape, value_shape;
  int64_t n_samples;
  ChunkPlan plan;
  Operand inputs[kMaxInputs];
  double numbers[kMaxNumbers];
  uint64_t seed, stream;
  Operand grad_value, grad_log;  // broadcast to value_shape, to the call's shape
  Grad grads[kMaxInputs];
};

// One variant of an op.
struct PointwiseVariant {
  int passes_on;
  void (*forward_float)(const PointwiseForward&);
  void (*forward_double)(const PointwiseForward&);
  void (*backward_float)(const PointwiseBackward&);
  void (*backward_double)(const PointwiseBackward&);
};

constexpr int kMaxVariants = 20;

struct PointwiseKernels {
  int inputs;
  Results results;
  Noise noise;
  bool samples;
  int n_variants;
  PointwiseVariant variants[kMaxVariants];
};

#define BSL_DECLARE(name) BSL_DECLARE_KERNELS(PointwiseKernels, name##_kernels)
BSL_POINTWISE_OPS(BSL_DECLARE)
#undef BSL_DECLARE

}  // namespace bsl
