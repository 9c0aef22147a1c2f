// The logistic distribution: log f(z) = -|z| - 2 log(1 + exp(-|z|)).
#pragma once

#include "core/distributions/location_scale.h"
#include "core/math.h"

namespace bsl {
namespace {
namespace logistic {

// log(u / (1 - u)). With a = |u - 1/2|, |z| = log1p(2 a / (1/2 - a)), where both terms of the
// quotient are exact: the tails and what is close to 0 have all their digits.
template <typename T>
BSL_HD T logit_of_uniform(T u) {
  const T above = u - T(0.5);
  const T a = math::abs(above);
  return math::with_sign(math::log1p_of_finite((a + a) / (T(0.5) - a)), above);
}

struct Base {
  static constexpr Noise noise = Noise::uniform;

  // The density at z is u (1 - u), at most 1/4: its logarithm cannot be small.
  template <typename T>
  BSL_HD static location_scale::Draw<T> draw(T u) {
    return {logit_of_uniform(u), math::log_of_normal(u * (T(1) - u))};
  }

  template <typename T>
  BSL_HD static T log_density(T z) {
    const T a = -math::abs(z);
    return a - T(2) * math::softplus(a);
  }

  template <typename T>
  BSL_HD static T score(T z) {
    return -math::tanh(T(0.5) * z);
  }
};

}  // namespace logistic
}  // namespace
}  // namespace bsl
