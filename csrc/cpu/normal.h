// Reparametrised samples of a normal distribution, and its KL divergence from another.
#pragma once

#include <cstdint>

#include "core/distributions/normal.h"
#include "cpu/isa.h"
#include "cpu/layout.h"

namespace bsl {

struct NormalForward {
  Shape shape;  // of the parameters
  ChunkPlan plan;
  Storage storage;  // of the tensors and the sample; the divergence's is native
  Operand loc, raw_scale, prior_loc, prior_scale;
  Parametrization parametrization;
  uint64_t seed, stream;
  int64_t n_samples;
  void* sample;  // [n_samples, *shape], or null: not wanted
  Reduction reduction;
  void* kl;          // null: not wanted
  double* partials;  // plan.n_partials()
  int* bad_scale;    // set to 1 if a scale, or a prior's, is negative
};

struct NormalBackward {
  Shape shape;
  ChunkPlan plan;
  Operand loc, raw_scale, prior_loc, prior_scale;
  Parametrization parametrization;
  uint64_t seed, stream;
  int64_t n_samples;
  Shape sample_shape;   // [n_samples, *shape], merged for grad_sample's sake
  Operand grad_sample;  // absent: no gradient arrives there
  Operand grad_kl;      // broadcast to the parameters' shape; absent: likewise
  Grad grad_loc, grad_raw_scale, grad_prior_loc, grad_prior_scale;
};

struct NormalKernels {
  void (*forward_float)(const NormalForward&);
  void (*forward_double)(const NormalForward&);
  void (*backward_float)(const NormalBackward&);
  void (*backward_double)(const NormalBackward&);
};
BSL_DECLARE_KERNELS(NormalKernels, normal_kernels)

}  // namespace bsl
