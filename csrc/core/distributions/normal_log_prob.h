// The log density of a normal distribution whose scale comes from a raw parameter.
//
// With z = (x - loc) / scale, log p(x) = -z^2 / 2 - log(scale) - log(2 pi) / 2. The scale is never
// squared, and its logarithm comes from the raw parameter where that is a logarithm already.
#pragma once

#include "core/distributions/normal.h"
#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace normal {

template <typename T>
constexpr T kHalfLog2Pi = T(0.91893853320467274178);

// The logarithm of the scale, and 1 over it or the scale itself: what z takes.
template <typename T>
struct Density {
  T log_scale;
  T factor;
};

template <Parametrization P, typename T>
BSL_HD Density<T> density(T raw) {
  if constexpr (kIsLog<P>) {
    const T log_scale = P == Parametrization::log_var ? T(0.5) * raw : raw;
    return {log_scale, math::exp(-log_scale)};
  }
  const T s = scale<P>(raw);
  const T log_s = math::log(s);
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return {tail ? raw : log_s, s};
}

// Divided by the scale.
template <Parametrization P, typename T>
BSL_HD T divided(T value, const Density<T>& d) {
  if constexpr (kIsLog<P>) return value * d.factor;
  return value / d.factor;  // 1 / scale overflows where the quotient does not
}

template <Parametrization P, typename T>
BSL_HD T log_prob(T x, T loc, T raw) {
  const Density<T> d = density<P>(raw);
  const T z = divided<P>(x - loc, d);
  return (T(-0.5) * z) * z - (d.log_scale + kHalfLog2Pi<T>);
}

// d log p / d loc; d log p / d x is its negative.
template <Parametrization P, typename T>
BSL_HD T log_prob_grad_loc(T x, T loc, const Density<T>& d) {
  return divided<P>(divided<P>(x - loc, d), d);
}

// d log p / d raw = (z^2 - 1) d log(scale) / d raw.
template <Parametrization P, typename T>
BSL_HD T log_prob_grad_raw(T x, T loc, T raw, const Density<T>& d) {
  const T z = divided<P>(x - loc, d);
  const T square_minus_one = (z - T(1)) * (z + T(1));
  if constexpr (P == Parametrization::log_scale) return square_minus_one;
  if constexpr (P == Parametrization::log_var) return T(0.5) * square_minus_one;
  const T d_log = divided<P>(scale_grad<P>(raw), d);
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return square_minus_one * (tail ? T(1) : d_log);
}

}  // namespace normal
}  // namespace
}  // namespace bsl
