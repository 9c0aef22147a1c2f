// Tensors of normal weights: samples and divergences as of normal_rsample_kl, or the part of them
// that is wanted.
#pragma once

#include <cstdint>

#include "core/layout.h"

namespace bsl {

// A contiguous tensor of weights, with a prior whose parameters are numbers.
struct NormalTensor {
  bool is_double;
  Storage storage;
  int parametrization;
  int64_t size;
  const void* loc;
  const void* raw_scale;
  double prior_loc, prior_scale;
  uint64_t seed, stream;
};

// Draws samples [n_samples, size] and adds the divergence to `kl`; each may be null. Returns false
// if a scale is negative.
bool draw_normal(const NormalTensor& t, int64_t n_samples, void* samples, double* kl);

// The gradients of a sample's loc and raw scale, each null if it is not wanted, from those of the
// sample and of the divergence, each null if there is none.
void pull_back_normal(const NormalTensor& t, const void* grad_sample, const double* grad_kl,
                      void* grad_loc, void* grad_raw_scale);

}  // namespace bsl
