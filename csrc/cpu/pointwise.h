// The kernels of all pointwise ops, see core/pointwise.h. Each op's are in the cpu/*.cpp of its
// family.
#pragma once

#include "core/pointwise.h"
#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct PointwiseForward {
  Shape shape;
  ChunkPlan plan;
  Storage storage;
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
  Shape shape;
  ChunkPlan plan;
  Operand inputs[kMaxInputs];
  double numbers[kMaxNumbers];
  uint64_t seed, stream;
  Operand grad_value, grad_log;  // broadcast to the call's shape
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

constexpr int kMaxVariants = 16;

struct PointwiseKernels {
  int inputs;
  Results results;
  Noise noise;
  int n_variants;
  PointwiseVariant variants[kMaxVariants];
};

// The table of ops: X(name) for each; kernels are called name_kernels.
#define BSL_POINTWISE_OPS(X)       \
  X(affine_coupling)               \
  X(bernoulli_log_prob)            \
  X(discretized_logistic_log_prob) \
  X(gumbel_log_prob)               \
  X(gumbel_rsample)                \
  X(gumbel_rsample_log_prob)       \
  X(half_cauchy_kl)                \
  X(half_cauchy_log_prob)          \
  X(half_cauchy_rsample)           \
  X(laplace_kl)                    \
  X(laplace_log_prob)              \
  X(laplace_rsample)               \
  X(laplace_rsample_log_prob)      \
  X(leaky_relu_transform)          \
  X(logistic_log_prob)             \
  X(logistic_rsample)              \
  X(logistic_rsample_log_prob)     \
  X(lognormal_log_prob)            \
  X(lognormal_rsample)             \
  X(normal_log_prob)               \
  X(normal_rsample_mc_kl)          \
  X(poisson_log_prob)              \
  X(relaxed_bernoulli_rsample)     \
  X(sigmoid_transform)             \
  X(softplus_transform)            \
  X(student_t_log_prob)            \
  X(student_t_rsample)             \
  X(tanh_transform)

#define BSL_DECLARE(name) BSL_DECLARE_KERNELS(PointwiseKernels, name##_kernels)
BSL_POINTWISE_OPS(BSL_DECLARE)
#undef BSL_DECLARE

}  // namespace bsl
