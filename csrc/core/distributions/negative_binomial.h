// The negative binomial distribution of counts x with mean mu and variance mu + mu^2 / r, given by
// the logarithms l of mu and t of the total count r.
//
// With n = x + r, d = log(n / (r + mu)), h(d) = exp(d) - 1 - d >= 0 and Stirling's remainder s,
//
//   log p(x) = log Poisson(x; rate mu exp(d)) - r h(d) - log(n / r) / 2 + s(n) - s(r).
//
// All terms but the first vanish as r grows. The derivative by d is 0: a rounding error of d does
// not count. Source: Loader, "Fast and accurate computation of binomial probabilities" (2000,
// https://www.r-project.org/doc/reports/CLoader-dbinom-2002.pdf).
#pragma once

#include "core/distributions/poisson.h"
#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"
#include "core/special.h"

namespace bsl {
namespace {
namespace negative_binomial {

template <typename T>
struct Terms {
  T r, n, log_r, log_n, log_ratio;  // log(n / r)
  T beyond;                         // what log r lacks of a logarithm that is -infinity
  T share;                          // x / n
  T d, log_rate;                    // log(mu exp(d))
  T r_excess;                       // r h(d)
  T p, q;                           // r / (r + mu), mu / (r + mu)
  bool few;                         // mu < r

  BSL_HD Terms(T l, T t, T x) {
    // The square of a root, as r itself may overflow where r h(d) does not; beyond these a total
    // count is as good as infinite or, but for its logarithm, as 0.
    constexpr T most = math::Real<T>::exp_max - T(1);
    const T half = T(0.5) * t;
    const T root = math::exp(half > most ? most : half);
    constexpr T least = T(-1) / math::Real<T>::min_normal;
    log_r = t < least ? least : t;  // finite, or two infinities would meet
    r = root * root;
    n = x + r;
    // log(1 + u) with u <= 1 is what the logarithm of the larger one lacks.
    const bool below = x <= r;
    const T large = below ? r : x;
    const T u = (below ? x : r) / (large < math::Real<T>::min_normal ? T(1) : large);
    const T rest = math::log1p_of_finite(u);
    const T log_x = math::log(x);
    log_n = below ? log_r + rest : log_x + rest;
    log_ratio = below ? rest : log_n - log_r;
    beyond = below ? T(0) : t - log_r;
    const T over = T(1) / (T(1) + u);
    share = below ? u * over : over;

    const T a = l - log_r;  // log(mu / r)
    few = a < T(0);
    const T e = math::exp_minus_abs(a);
    const T w = math::log1p_of_finite(e);
    const T more = T(1) / (T(1) + e), less = e * more;
    p = few ? more : less;
    q = few ? less : more;
    const T nq = log_n - w;  // log(n q) where mu >= r
    d = few ? log_ratio - w : nq - l;
    log_rate = few ? l + d : nq;

    const T h = T(0.5) * d;
    const T square = h * h * math::exp_tail(h);
    const T m = h + square;
    const T near = m * m + T(2) * square;
    const T minus = math::exp(d < T(0) ? d : T(0)) - (T(1) + d);
    // n p - r (1 + d): n p is finite where exp(d) is not.
    const T log_np = few ? log_n - w : (log_n - a) - w;
    const T plus = math::exp(log_np) - product(r, T(1) + d);
    const T by_root = root * (poisson::is_near(d) ? near : minus) * root;
    r_excess = d < T(0.6931471805599453) ? by_root : plus;
  }
};

// s(y) = log y! - (y log y - y + log(2 pi y) / 2), also for small y.
template <typename T>
BSL_HD T remainder(T y, T log_y) {
  constexpr T half_log_2_pi = T(0.91893853320467274178);
  const T small =
      y * (y - T(1)) * special::log_factorial_ratio(y) - ((y + T(0.5)) * log_y - y + half_log_2_pi);
  return y < special::kStirlingStart<T> ? small : special::stirling_remainder(y);
}

// digamma(y + 1) - log y.
template <typename T>
BSL_HD T digamma_rest(T y, T log_y) {
  const T small = special::digamma_ratio(y) - log_y;
  return y < special::kStirlingStart<T> ? small : special::digamma_minus_log(y);
}

struct LogProb : Pointwise<3, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T, T x) {
    return (x < T(0)) << 2;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T l, T t, T count) {
    const T x = special::nan_if_negative(count);
    const Terms<T> k(l, t, x);
    const T of_rate = poisson::LogProb::forward(numbers, k.log_rate, x).log;
    const T gamma = (remainder(k.n, k.log_n) - remainder(k.r, k.log_r)) - T(0.5) * k.log_ratio;
    // Without an event exactly 0: the difference of equal numbers may have been contracted.
    return {T(0), (of_rate - k.r_excess) + (k.log_ratio == T(0) ? T(0) : gamma + k.beyond)};
  }

  // By l: p (x - mu). By x: log(mu exp(d)) - digamma(x + 1) + digamma(n) - log n.
  // By t: r (digamma(n) - log n - digamma(r) + log r - h(d)).
  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>& numbers, Result<T> grad, T l, T t,
                                         T count) {
    const T x = special::nan_if_negative(count);
    const Terms<T> k(l, t, x);
    // r (digamma_rest(n) - digamma_rest(r)); of large r what their first terms leave.
    const T r = k.r, inverse_r = T(1) / r, inverse_n = T(1) / k.n;
    const T rest_of_n = digamma_rest(k.n, k.log_n);
    const T small = r * (rest_of_n - digamma_rest(r, k.log_r));
    const T large = inverse_r * special::digamma_tail(inverse_r * inverse_r) -
                    (T(1) - k.share) * (inverse_n * special::digamma_tail(inverse_n * inverse_n)) -
                    T(0.5) * k.share;
    const T by_gamma = k.share + (r < special::kStirlingStart<T> ? small : large);
    const T by_x = poisson::LogProb::backward(numbers, {T(0), T(1)}, k.log_rate, x).of[1] +
                   (rest_of_n - inverse_n);
    // r q is mu p, of which one may be a product of 0 and infinity.
    const T xp = x * k.p;
    const T far = xp - ((k.few ? math::exp(l) * k.p : r * k.q));
    const T d = poisson::distance(l, x).d;
    const T h = T(0.5) * d;
    const T m = h + h * h * math::exp_tail(h);
    const T by_l = poisson::is_near(d) ? -xp * (m * (m + T(2))) : far;
    return {{grad.log * by_l, grad.log * (by_gamma - k.r_excess), grad.log * by_x}};
  }
};

}  // namespace negative_binomial
}  // namespace
}  // namespace bsl
