// The Poisson distribution, given by the logarithm l of its rate r.
//
// log p(x) = x l - r - log x!. For large x these are huge numbers that almost cancel, so with
// d = l - log x and Stirling's formula
//
//   log p(x) = -(x (exp(d) - 1 - d) + log(2 pi x) / 2 + remainder(x)),
//
// a sum of positive terms. Where d is small, log x is never rounded. Source: Loader, "Fast and
// accurate computation of binomial probabilities" (2000,
// https://www.r-project.org/doc/reports/CLoader-dbinom-2002.pdf).
#pragma once

#include "core/math.h"
#include "core/pointwise.h"
#include "core/special.h"

namespace bsl {
namespace {
namespace poisson {

// d = l - log x, and log x. d is accurate where it is small, as what is subtracted is exact but for
// the tail.
template <typename T>
struct Distance {
  T d, log_x;
};

template <typename T>
BSL_HD Distance<T> distance(T l, T x) {
  using R = math::Real<T>;
  const math::LogReduction<T> reduced = math::log_reduce(x, T(0));
  const T f = reduced.m - T(1);
  const T rest = math::log_tail(f) + reduced.e * R::ln2_low;
  const T high = reduced.e * R::ln2_high;  // exact
  const T d = ((l - high) - f) - rest;
  return {x < R::infinity ? d : l - x, high + (f + rest)};
}

// Up to |d| = log 2, exp(d) comes from h = d / 2: with p = exp(h) - 1,
// exp(d) - 1 = p (p + 2) and exp(d) - 1 - d = p^2 + 2 (exp(h) - 1 - h).
template <typename T>
BSL_HD bool is_near(T d) {
  return math::abs(d) < T(0.6931471805599453);
}

// No result of exp is finite beyond.
template <typename T>
BSL_HD T bounded(T l) {
  constexpr T most = T(2) * math::Real<T>::exp_max;
  return l > most ? most : l;
}

// x l, but 0 where x is 0, whatever l. Without a comparison: compilers make branches of several
// selects by x.
template <typename T>
BSL_HD T product(T x, T l) {
  return math::from_bits(math::bits(x * l) & ~math::mask_of_top_bit(math::bits(x) - 1));
}

struct LogProb : Pointwise<2, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T x) {
    return (x < T(0)) << 1;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T log_rate, T count) {
    constexpr T half_log_2_pi = T(0.91893853320467274178);
    const T x = special::nan_if_negative(count);
    const T l = bounded(log_rate);
    const T rate = math::exp(log_rate);
    const Distance<T> to = distance(l, x);
    const T h = T(0.5) * to.d;
    const T square = h * h * math::exp_tail(h);
    const T p = h + square;
    const T near = x * (p * p + T(2) * square);
    // An infinite rate has an infinite deviance, also where what is taken off it is infinite.
    const T far = rate < math::Real<T>::infinity ? rate - x * (T(1) + to.d) : rate;
    const T deviance = is_near(to.d) ? near : far;
    const T large = deviance + (T(0.5) * to.log_x + half_log_2_pi + special::stirling_remainder(x));
    const T log_factorial = x * (x - T(1)) * special::log_factorial_ratio(x);
    // No rate and no event: 0 times infinity.
    const T small = (log_factorial + rate) - product(x, l);
    return {T(0), -(x < special::kStirlingStart<T> ? small : large)};
  }

  // By l: x - r. By x: l - digamma(x + 1).
  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T log_rate, T count) {
    const T x = special::nan_if_negative(count);
    const T rate = math::exp(log_rate);
    const T d = distance(log_rate, x).d;
    const T h = T(0.5) * d;
    const T p = h + h * h * math::exp_tail(h);
    const T near = -x * (p * (p + T(2)));
    const T far = x - rate;
    const T large = d - special::digamma_minus_log(x);
    const T small = log_rate - special::digamma_ratio(x);
    return {{grad.log * (is_near(d) ? near : far),
             grad.log * (x < special::kStirlingStart<T> ? small : large)}};
  }
};

}  // namespace poisson
}  // namespace
}  // namespace bsl
