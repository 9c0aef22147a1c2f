// A component of a deep sigmoidal transformation: z = a x + b with a = softplus(raw_slope).
//
// The mixture of mixture_logistic.h in other parameters. Source: Huang et al., "Neural
// autoregressive flows" (2018, arXiv:1804.00779), section 3.2.
#pragma once

#include "core/bijectors/mixture_logistic.h"
#include "core/distributions/scale.h"

namespace bsl {
namespace {
namespace mixture_logistic {

template <typename T>
struct SlopeShift {
  static constexpr bool kBroad = true;
  static constexpr T kApart = T(0);
  static constexpr bool kKeepsRest = false;  // x is rounded less than a x + b is
  // Below kDeep, where softplus would soon underflow, the factor is that of a slope so much higher,
  // and kUnit what is left: both are exponentials there.
  static constexpr T kDeep = T(sizeof(T) == 4 ? -70 : -640);
  static constexpr T kLift = T(sizeof(T) == 4 ? 50 : 600);
  static constexpr T kUnit = T(sizeof(T) == 4 ? 1.9287498479639178e-22 : 2.6503965530043108e-261);

  T raw_slope, shift;
  T factor;  // of the slope, and never 0: an infinite x has an infinite z

  BSL_HD static T factor_of(T raw_slope, T) {
    constexpr T least = math::Real<T>::min_normal;
    const T a = math::softplus(raw_slope < kDeep ? raw_slope + kLift : raw_slope);
    return a < least ? least : a;
  }

  BSL_HD T unit() const { return raw_slope < kDeep ? kUnit : T(1); }
  BSL_HD T times_rate(T value) const { return value * factor * unit(); }
  // At a jump at 0 it is the middle.
  BSL_HD T z(T x) const {
    const T rise = times_rate(x);
    return (x == T(0) ? x : rise) + shift;
  }
  BSL_HD T half_z(T x) const { return times_rate(T(0.5) * x) + T(0.5) * shift; }
  BSL_HD T wide_z(T x) const { return T(2) * half_z(x); }
  BSL_HD T log_distance(T x) const {
    const T half = math::abs(half_z(x));
    const T beyond = math::log(math::abs(T(0.5) * x)) + log_rate();
    return half < math::Real<T>::infinity ? math::log(half) : beyond;
  }

  BSL_HD T log_rate() const {
    const T log_factor = math::log(factor);
    return raw_slope < kSoftplusTail<T> ? raw_slope : log_factor;
  }

  // That of a flat component may be infinite, where a mixture's may not.
  BSL_HD T solution(T y) const {
    return finite_where(y, T(2) * ((T(0.5) * y - T(0.5) * shift) / factor / unit()));
  }

  BSL_HD ParameterGradients<T> gradients(const Arriving<T>& by, T x, T) const {
    const Scale<T> scale{T(0), factor};
    const auto by_raw = [&](T by_log) {
      return times_log_scale_grad<Parametrization::softplus>(by_log, raw_slope, scale);
    };
    // times x last: a x may overflow where this does not.
    const T by_rise = product(by_raw(by.rated), x);
    return {by_rise + by_raw(by.log_rate - product(by.solution, settled(x))), by.z};
  }
};

}  // namespace mixture_logistic
}  // namespace
}  // namespace bsl
