// The ops over rows: see core/rows.h. The .cpp files here say what an op's kernels are made of, and
// are compiled for every CPU instruction set and for CUDA. Others have a file in cpu/ and one in
// cuda/.
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
