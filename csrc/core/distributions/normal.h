// The KL divergence between two normal distributions.
//
// With t = scale / prior_scale and d = (loc - prior_loc) / prior_scale,
//   KL(N(loc, scale) || N(prior_loc, prior_scale)) = (t^2 - 1 + d^2) / 2 - log t.
// t^2 - 1 and log t both vanish at t = 1. They come as (t - 1)(t + 1) and log(t), or as expm1(2 log
// t) and log t, from one rounded number, so that their rounding errors cancel where the KL is
// small.
#pragma once

#include "core/distributions/scale.h"
#include "core/math.h"
#include "core/platform.h"

namespace bsl {

namespace {
namespace normal {

// The prior's parameters in the form that the KL needs.
template <typename T>
struct Prior {
  T loc;
  T inv_scale;
  T log_scale;
};

// t^2 - 1 and log t.
template <typename T>
struct Ratio {
  T square_minus_one;
  T log;
};

// `scale` and `scale_grad` below are those of `raw`, for which the caller has other uses too. Log
// parametrizations do without.
template <Parametrization P, typename T>
BSL_HD Ratio<T> ratio(T raw, T scale, const Prior<T>& prior) {
  if constexpr (kIsLog<P>) {
    const T half = P == Parametrization::log_var ? T(0.5) : T(1);
    const T log_t = half * raw - prior.log_scale;
    return {math::expm1(T(2) * log_t), log_t};
  }
  const T t = scale * prior.inv_scale;
  // t may lose digits to underflow where the scale has them all.
  const bool tiny = t < math::Real<T>::min_normal;
  const T argument = tiny ? scale : t;
  // Outside its tail a softplus is not subnormal: infinities and NaN are all that is special.
  const T finite = math::log_of_normal(argument);
  const T log_argument = P == Parametrization::softplus
                             ? (argument < math::Real<T>::infinity ? finite : argument)
                             : math::log(argument);
  const T log_t = log_argument - (tiny ? prior.log_scale : T(0));
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return {(t - T(1)) * (t + T(1)), tail ? raw - prior.log_scale : log_t};
}

template <Parametrization P, typename T>
BSL_HD T kl(T loc, T raw, T scale, const Prior<T>& prior) {
  const Ratio<T> t = ratio<P>(raw, scale, prior);
  const T d = (loc - prior.loc) * prior.inv_scale;
  return T(0.5) * (t.square_minus_one + d * d) - t.log;
}

template <typename T>
BSL_HD T kl_grad_loc(T loc, const Prior<T>& prior) {
  return (loc - prior.loc) * prior.inv_scale * prior.inv_scale;
}

// d KL / d raw = (t^2 - 1) d log(scale) / d raw, without a square, which may overflow: with
// (t + 1) / scale = 1 / prior_scale + 1 / scale.
template <Parametrization P, typename T>
BSL_HD T kl_grad_raw(T raw, T scale, T scale_grad, const Prior<T>& prior) {
  if constexpr (kIsLog<P>) {
    const T square_minus_one = ratio<P>(raw, scale, prior).square_minus_one;
    return P == Parametrization::log_var ? T(0.5) * square_minus_one : square_minus_one;
  }
  const T d_log = scale_grad / scale;
  const bool tail = P == Parametrization::softplus && raw < kSoftplusTail<T>;
  return (scale * prior.inv_scale - T(1)) * (scale_grad * prior.inv_scale + (tail ? T(1) : d_log));
}

// d KL / d prior_scale, without squares; d KL / d prior_loc is -kl_grad_loc.
template <Parametrization P, typename T>
BSL_HD T kl_grad_prior_scale(T loc, T raw, T scale, const Prior<T>& prior) {
  const T d = (loc - prior.loc) * prior.inv_scale;
  T t_minus_one = scale * prior.inv_scale - T(1);
  if constexpr (kIsLog<P>) t_minus_one = math::expm1(ratio<P>(raw, scale, prior).log);
  const T by_ratio = t_minus_one * ((t_minus_one + T(2)) * prior.inv_scale);
  return -(by_ratio + d * (d * prior.inv_scale));
}

}  // namespace normal
}  // namespace
}  // namespace bsl
