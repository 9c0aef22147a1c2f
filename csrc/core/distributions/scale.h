// The scale of a location-scale distribution, made from a raw parameter.
//
// The scale is never squared, and its logarithm comes from the raw parameter where that is a
// logarithm already.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {

enum class Parametrization { softplus, scale, log_scale, log_var };

namespace {

template <Parametrization P>
constexpr bool kIsLog = P == Parametrization::log_scale || P == Parametrization::log_var;

// Below this, softplus(x) = exp(x) to the last digit, and the logarithm of softplus is x itself,
// even where exp(x) underflows.
template <typename T>
constexpr T kSoftplusTail = T(sizeof(T) == 4 ? -17 : -37);

template <Parametrization P, typename T>
BSL_HD T scale_of(T raw) {
  if constexpr (P == Parametrization::softplus) return math::softplus(raw);
  if constexpr (P == Parametrization::scale) {
    // NaN if it is negative: beyond the bits of -0. Of integers, as compilers follow the comparison
    // of numbers, and a constant NaN, by a branch of their own.
    using R = math::Real<T>;
    return math::from_bits(math::bits(raw) | (math::bits(raw) > R::sign ? math::bits(R::nan) : 0));
  }
  if constexpr (P == Parametrization::log_scale) return math::exp(raw);
  return math::exp(T(0.5) * raw);
}

// d scale / d raw.
template <Parametrization P, typename T>
BSL_HD T scale_grad(T raw) {
  if constexpr (P == Parametrization::softplus) return math::sigmoid(raw);
  if constexpr (P == Parametrization::scale) return T(1);
  if constexpr (P == Parametrization::log_scale) return math::exp(raw);
  return T(0.5) * math::exp(T(0.5) * raw);
}

// A softplus below this nears numbers that lose digits: what is used is exp(kLift) times it, and
// kLifted is that power. Lifted it is still in its tail.
template <typename T>
constexpr T kLift = T(sizeof(T) == 4 ? 64 : 512);
template <typename T>
constexpr T kLifted = T(sizeof(T) == 4 ? 6.2351490808115959e27 : 2.2844135865396945e222);
template <typename T>
constexpr T kDeepSoftplus = kSoftplusTail<T> - kLift<T>;

// A scale as log densities need it: its logarithm, and what divides by it (see divided). The factor
// is finite and not 0, or the quotient of 0, at the location, would be NaN.
template <typename T>
struct Scale {
  T log;
  T factor;       // of a logarithm, 1 / sqrt(scale): 1 / scale overflows before quotients do
  T lift = T(1);  // of a softplus
};

template <Parametrization P, typename T>
BSL_HD Scale<T> scale_and_log(T raw) {
  if constexpr (kIsLog<P>) {
    const T log = P == Parametrization::log_var ? T(0.5) * raw : raw;
    constexpr T most = math::Real<T>::exp_max - T(1);
    const T half = T(-0.5) * log;
    return {log, math::exp(half > most ? most : half), T(1)};
  }
  const bool deep = P == Parametrization::softplus && raw < kDeepSoftplus<T>;
  // The logarithm of a negative scale is NaN: no need for scale_of to see to it.
  const T s = P == Parametrization::scale ? raw : scale_of<P>(deep ? raw + kLift<T> : raw);
  const T log_s = math::log(s);
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return {tail ? raw : log_s, s == T(0) ? math::Real<T>::min_normal : s, deep ? kLifted<T> : T(1)};
}

// value / scale.
template <Parametrization P, typename T>
BSL_HD T divided(T value, const Scale<T>& scale) {
  if constexpr (kIsLog<P>) return value * scale.factor * scale.factor;
  if constexpr (P == Parametrization::softplus) return value * scale.lift / scale.factor;
  return value / scale.factor;  // 1 / scale overflows where the quotient does not
}

// `log_prob` at z scales from the location. All of a scale of 0 is there: elsewhere log_prob, a
// difference of infinities, is NaN and should be -infinity.
template <typename T>
BSL_HD T unless_scale_is_0(T log_prob, T z, const Scale<T>& scale) {
  const bool elsewhere = (scale.log == -math::Real<T>::infinity) & (math::abs(z) > T(0));
  return elsewhere ? -math::Real<T>::infinity : log_prob;
}

// value times d log(scale) / d raw.
template <Parametrization P, typename T>
BSL_HD T times_log_scale_grad(T value, T raw, const Scale<T>& scale) {
  if constexpr (P == Parametrization::log_scale) return value;
  if constexpr (P == Parametrization::log_var) return T(0.5) * value;
  // What is not in the tail is not lifted; a scale of 0 has an infinite derivative.
  const T d_log = scale_grad<P>(raw) / (P == Parametrization::scale ? raw : scale.factor);
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return value * (tail ? T(1) : d_log);
}

}  // namespace
}  // namespace bsl
