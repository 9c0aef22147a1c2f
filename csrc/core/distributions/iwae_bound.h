// The importance-weighted bound log((1/K) sum w) = max + log(sum exp(log w - max)) - log K.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {

namespace {
namespace iwae_bound {

// What is subtracted before exponentials: the largest log weight, unless that is infinite, where
// the sum of weights is 0 or infinity without it.
template <typename T>
BSL_HD T finite_or_zero(T max) {
  return math::abs(max) == math::Real<T>::infinity ? T(0) : max;
}

template <typename T>
BSL_HD T bound(T max, T sum, T log_samples) {
  return max + (math::log(sum) - log_samples);
}

// A normalised weight, or 0 if it is so small that its sample's gradient is nothing beside those of
// others. Where weights differ much, as at the start of training, most gradients would otherwise be
// subnormal numbers, with which CPUs compute a hundred times as slowly, in all layers below.
template <typename T>
BSL_HD T settled(T normalised) {
  using R = math::Real<T>;
  return normalised < R::min_normal * R::ulp_is_one * R::ulp_is_one ? T(0) : normalised;
}

// The factor of the gradient of a log weight.
template <typename T>
BSL_HD T gradient(T grad, T weight, T sum, bool squared) {
  const T normalised = weight / sum;
  return grad * settled(squared ? normalised * normalised : normalised);
}

}  // namespace iwae_bound
}  // namespace
}  // namespace bsl
