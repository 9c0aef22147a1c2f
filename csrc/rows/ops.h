// The ops over rows, see core/rows.h, and those with a softmax, see core/softmax_call.h. The .cpp
// files here are compiled for every CPU instruction set and for CUDA. They say what an op's kernels
// are made of. Where these differ, both are there, that for CUDA below #ifdef __CUDACC__.
#pragma once

// X(name) for each; kernels are called name_kernels.
#define BSL_ROW_OPS(X)                     \
  X(bernstein_transform)                   \
  X(deep_sigmoidal_transform)              \
  X(discretized_logistic_mixture_log_prob) \
  X(mixture_logistic_transform)            \
  X(planar)                                \
  X(radial)                                \
  X(rational_quadratic_spline)

#define BSL_SOFTMAX_OPS(X)  \
  X(categorical_log_prob)   \
  X(gumbel_softmax_rsample) \
  X(iwae_bound)
