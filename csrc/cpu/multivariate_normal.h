// A vector of weights with a full covariance: samples, and the divergence from independent normals.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace bsl {

struct MultivariateNormal {
  static constexpr int kRowsTogether = 4;  // rows of the factor that kernels work on at a time
  static constexpr int kMostBeyond = 64;   // numbers that they read beyond the noise

  int64_t n, n_samples;
  int parametrization;
  const void* loc;  // [n], as raw_scale
  const void* raw_scale;
  const void* lower;  // [n, n], of which the numbers below the diagonal count
  double prior_loc, prior_scale;
  uint64_t seed, stream;
  double* scratch;  // room for scratch_size() numbers

  int64_t scratch_size() const {
    return 2 * n + n_samples * n + kMostBeyond + (n + kRowsTogether - 1) / kRowsTogether;
  }
};

struct MultivariateNormalForward : MultivariateNormal {
  void* samples;  // [n_samples, n]; null if they are not wanted
  void* kl;       // likewise
};

struct MultivariateNormalBackward : MultivariateNormal {
  const void* grad_samples;  // null if none arrived
  const void* grad_kl;       // likewise
  void* grad_loc;            // null if it is not wanted, as the next two
  void* grad_raw_scale;
  void* grad_lower;
};

struct MultivariateNormalKernels {
  // They return false if a scale is negative.
  bool (*forward_float)(const MultivariateNormalForward&);
  bool (*forward_double)(const MultivariateNormalForward&);
  void (*backward_float)(const MultivariateNormalBackward&);
  void (*backward_double)(const MultivariateNormalBackward&);
};
BSL_DECLARE_KERNELS(MultivariateNormalKernels, multivariate_normal_kernels)

}  // namespace bsl
