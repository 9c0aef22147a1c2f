// The Gumbel distribution (of maxima): log f(z) = -z - exp(-z).
#pragma once

#include "core/distributions/location_scale.h"
#include "core/math.h"

namespace bsl {
namespace {
namespace gumbel {

struct Base {
  static constexpr Noise noise = Noise::uniform;

  // exp(-z) = -log(u). u is exact, also next to 1, hence so is its logarithm but for an ulp.
  template <typename T>
  BSL_HD static location_scale::Draw<T> draw(T u) {
    const T w = -math::log_of_normal(u);
    const T log_w = math::log_of_normal(w);
    return {-log_w, log_w - w};
  }

  template <typename T>
  BSL_HD static T log_density(T z) {
    // At -infinity the exponential wins; from -800 on it is infinite in any case.
    const T bounded = z < T(-800) ? T(-800) : z;
    return -(bounded + math::exp(-z));
  }

  template <typename T>
  BSL_HD static T score(T z) {
    return math::expm1(-z);
  }
};

}  // namespace gumbel
}  // namespace
}  // namespace bsl
