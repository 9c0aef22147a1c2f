// A component of a deep sigmoidal transformation: z = a x + b with a = softplus(raw_slope).
//
// The mixture of mixture_logistic.h in other parameters. Huang et al., "Neural autoregressive
// flows" (2018), section 3.2.
#pragma once

#include "core/bijectors/mixture_logistic.h"
#include "core/distributions/scale.h"

namespace bsl {
namespace {
namespace mixture_logistic {

template <typename T>
struct SlopeShift {
  static constexpr bool kBroad = true;
  // Below kDeep, where softplus would soon underflow, the factor is that of a slope so much higher,
  // and kUnit what is left: both are exponentials there.
  static constexpr T kDeep = T(sizeof(T) == 4 ? -70 : -640);
  static constexpr T kLift = T(sizeof(T) == 4 ? 50 : 600);
  static constexpr T kUnit = T(sizeof(T) == 4 ? 1.9287498479639178e-22 : 2.6503965530043108e-261);

  static constexpr T kMost = T(sizeof(T) == 4 ? 3.4028234663852886e38 : 1.7976931348623157e308);

  T raw_slope, shift;
  T factor;  // of the slope, and never 0: an infinite x has an infinite z

  BSL_HD static T factor_of(T raw_slope, T) {
    constexpr T least = math::Real<T>::min_normal;
    const T a = math::softplus(raw_slope < kDeep ? raw_slope + kLift : raw_slope);
    return a < least ? least : a;
  }

  BSL_HD T unit() const { return raw_slope < kDeep ? kUnit : T(1); }
  BSL_HD T times_rate(T value) const { return value * factor * unit(); }
  // Of a jump at 0 the middle.
  BSL_HD T z(T x) const {
    const T rise = times_rate(x);
    return (x == T(0) ? x : rise) + shift;
  }

  BSL_HD T log_rate() const {
    const T log_factor = math::log(factor);
    return raw_slope < kSoftplusTail<T> ? raw_slope : log_factor;
  }

  // That of a flat component may be infinite, where a mixture's may not.
  BSL_HD T solution(T y) const {
    const T x = (y - shift) / factor / unit();
    const T below = x > kMost ? kMost : x;
    const T inside = below < -kMost ? -kMost : below;
    return math::abs(y) <= kMost ? inside : x;
  }

  // What a search ends with: at the end of the numbers, beyond it.
  BSL_HD static T settled(T x) {
    return math::abs(x) > T(0.99) * kMost ? x * math::Real<T>::infinity : x;
  }

  BSL_HD ParameterGradients<T> gradients(T by_z, T by_rated, T by_log_rate, T x, T) const {
    // 0 times infinity: far from this component.
    const T by_slope = by_rated == T(0) ? T(0) : by_rated * x;
    const Scale<T> scale{T(0), factor};
    return {
        times_log_scale_grad<Parametrization::softplus>(by_slope + by_log_rate, raw_slope, scale),
        by_z};
  }
};

}  // namespace mixture_logistic
}  // namespace
}  // namespace bsl
