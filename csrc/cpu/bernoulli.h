// The log likelihood of values in [0, 1] under Bernoulli distributions given by their logits.
#pragma once

#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct BernoulliForward {
  Shape shape;
  ChunkPlan plan;
  Operand logits, x;
  Reduction reduction;
  void* log_prob;
  double* partials;  // plan.n_partials()
};

struct BernoulliBackward {
  Shape shape;
  ChunkPlan plan;
  Operand logits, x;
  Operand grad;                // broadcast to the call's shape
  void *grad_logits, *grad_x;  // null: not wanted
};

struct BernoulliKernels {
  void (*forward_float)(const BernoulliForward&);
  void (*forward_double)(const BernoulliForward&);
  void (*backward_float)(const BernoulliBackward&);
  void (*backward_double)(const BernoulliBackward&);
};
BSL_DECLARE_KERNELS(BernoulliKernels, bernoulli_kernels)

}  // namespace bsl
