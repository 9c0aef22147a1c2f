// The scale of a location-scale distribution, made from a raw parameter.
//
// The scale is never squared, and its logarithm comes from the raw parameter where that is a
// logarithm already.
#pragma once

#include "core/math.h"
#include "core/platform.h"
#include "core/product.h"

namespace bsl {

enum class Parametrization { softplus, scale, log_scale, log_var };
// Their names in Python. Kernels have a variant for each, in this order.
constexpr const char* kParametrizationNames[] = {"softplus", "scale", "log_scale", "log_var"};

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
    // A negative number gives NaN: its bits are beyond those of -0. Integers are compared, as
    // compilers make a branch of a comparison of numbers followed by a constant NaN.
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

// A scale as log densities need it: its logarithm, and what divides by it (see divided).
template <typename T>
struct Scale {
  T log;
  T factor;
  T second = T(1);
};

// The scale of a sample or of a divergence: nothing is divided by it.
template <Parametrization P, typename T>
BSL_HD Scale<T> scale_and_log(T raw) {
  if constexpr (kIsLog<P>) return {P == Parametrization::log_var ? T(0.5) * raw : raw, T(1)};
  // The logarithm of a negative scale is NaN: no need for scale_of to see to it.
  if constexpr (P == Parametrization::scale) return {math::log(raw), raw};
  const T s = scale_of<P>(raw);
  // Outside its tail a softplus is not subnormal: infinities and NaN are all that is special.
  const T log_s = s < math::Real<T>::infinity ? math::log_of_normal(s) : s;
  return {raw < kSoftplusTail<T> ? raw : log_s, s};
}

// A softplus below the first of these nears numbers that lose digits: what is divided by is its
// product with exp(kLift), kLifted, which is still in its tail.
template <typename T>
constexpr T kDeepSoftplus = T(sizeof(T) == 4 ? -81 : -549);
template <typename T>
constexpr T kLift = T(sizeof(T) == 4 ? 64 : 512);
template <typename T>
constexpr T kLifted = T(sizeof(T) == 4 ? 6.2351490808115959e27 : 2.2844135865396945e222);

// The raw parameter of that product: raw itself where it is not in its tail.
template <Parametrization P, typename T>
BSL_HD T lifted(T raw) {
  if constexpr (P != Parametrization::softplus) return raw;
  constexpr T least = T(2) - math::Real<T>::exp_max;  // where the exponential is a normal number
  const T r = raw < kDeepSoftplus<T> ? raw + kLift<T> : raw;
  return r < least ? least : r;
}

// The scale to divide by, also where it underflows. Its derivatives are made from lifted(raw).
template <Parametrization P, typename T>
BSL_HD Scale<T> divisor(T raw) {
  Scale<T> s = scale_and_log<P>(lifted<P>(raw));
  if constexpr (P == Parametrization::softplus) {
    const bool deep = raw < kDeepSoftplus<T>;
    s.log = deep ? raw : s.log;
    s.second = deep ? kLifted<T> : T(1);
  }
  if constexpr (kIsLog<P>) {
    const math::ExpFactors<T> inverse = math::exp_factors(-s.log);
    s.factor = inverse.a;
    s.second = inverse.b;
  }
  return s;
}

// value / scale.
template <Parametrization P, typename T>
BSL_HD T divided(T value, const Scale<T>& scale) {
  if constexpr (kIsLog<P>) return value * scale.factor * scale.second;
  if constexpr (P == Parametrization::softplus) return value * scale.second / scale.factor;
  return value / scale.factor;  // 1 / scale overflows where this does not
}

// How many scales d is: 0 of 0.
template <Parametrization P, typename T>
BSL_HD T standardised(T d, const Scale<T>& scale) {
  const T z = divided<P>(d, scale);
  return P == Parametrization::scale && d == T(0) ? d : z;
}

// log(scale), to be subtracted from a log density. That beside a scale of 0 is -infinity, from
// which nothing infinite can be subtracted. Where the logarithm is given, finite is cheaper than
// nothing.
template <Parametrization P, typename T>
BSL_HD T log_unless_beside(T log_density, const Scale<T>& scale) {
  if constexpr (P == Parametrization::scale) {
    return log_density == -math::Real<T>::infinity ? T(0) : scale.log;
  }
  constexpr T least = T(-1) / math::Real<T>::min_normal;
  return scale.log < least ? least : scale.log;
}

// value times d log(scale) / d raw.
template <Parametrization P, typename T>
BSL_HD T times_log_scale_grad(T value, T raw, const Scale<T>& scale) {
  if constexpr (P == Parametrization::log_scale) return value;
  if constexpr (P == Parametrization::log_var) return T(0.5) * value;
  const T d_log = scale_grad<P>(raw) / scale.factor;
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return product(value, tail ? T(1) : d_log);
}

}  // namespace
}  // namespace bsl
