// The Laplace distribution: log f(z) = -|z| - log(2).
#pragma once

#include "core/distributions/location_scale.h"
#include "core/math.h"

namespace bsl {
namespace {
namespace laplace {

// -1, 0 or 1; NaN of NaN.
template <typename T>
BSL_HD T sign_of(T z) {
  const T unit = math::with_sign(T(1), z);
  return math::abs(z) > T(0) ? unit : z;
}

struct Base {
  static constexpr Noise noise = Noise::uniform;

  // |z| = -log(1 - 2 |u - 1/2|), whose argument is exact: the tails and what is close to 0 have all
  // their digits.
  template <typename T>
  BSL_HD static location_scale::Draw<T> draw(T u) {
    const T above = u - T(0.5);
    const T magnitude = -math::log_of_normal(T(1) - T(2) * math::abs(above));
    return {math::with_sign(magnitude, above), log_density(magnitude)};
  }

  template <typename T>
  BSL_HD static T log_density(T z) {
    constexpr T log_2 = T(0.6931471805599453);
    return -math::abs(z) - log_2;
  }

  template <typename T>
  BSL_HD static T score(T z) {
    return -sign_of(z);
  }
};

}  // namespace laplace
}  // namespace
}  // namespace bsl
