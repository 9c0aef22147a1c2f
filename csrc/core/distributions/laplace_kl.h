// The KL divergence between two Laplace distributions.
//
// With t = scale / prior_scale, d = |loc - prior_loc|, delta = d / scale,
//   KL = (t - 1 - log t) + t (exp(-delta) - 1 + delta).
// Either part is h(x) = exp(x) - 1 - x >= 0, of log t and of -delta: nothing cancels where the
// divergence is small.
#pragma once

#include "core/distributions/normal.h"
#include "core/distributions/scale.h"
#include "core/math.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace laplace {

template <Parametrization P, typename T>
struct Terms {
  T scale, t_minus_one, of_ratio;  // t - 1, and t - 1 - log t
  T d, delta;                      // signed
  T decay, fall, rest_share;       // e = exp(-|delta|), 1 - e, and (e - 1 + |delta|) / |delta|

  BSL_HD Terms(T loc, T raw, T prior_loc, T prior_scale) {
    // As the normal's KL has it, and with the same care for scales far below their priors'.
    const normal::Prior<T> prior = {prior_loc, T(1) / prior_scale, math::log(prior_scale)};
    const T log_scale = P == Parametrization::log_var ? T(0.5) * raw : raw;
    const math::ExpFactors<T> s = math::exp_factors(log_scale);
    scale = kIsLog<P> ? s.a * s.b : scale_of<P>(raw);
    const T log_t = normal::ratio<P>(raw, scale, prior).log;
    // exp_tail holds within log(2) / 2.
    const T close = log_t * log_t * math::exp_tail(log_t);
    const bool near_one = math::abs(log_t) < T(0.34);
    t_minus_one = scale / prior_scale - T(1);
    if constexpr (kIsLog<P>) {
      // Not exp(log_t), which multiplies the rounding error of a logarithm that may be large.
      const T t = s.a / prior_scale * s.b;
      const T far = (log_scale > math::kExpFactorsMost<T> ? math::Real<T>::infinity : t) - T(1);
      t_minus_one = near_one ? log_t + close : far;
    }
    of_ratio = near_one ? close : t_minus_one - log_t;
    d = loc - prior_loc;
    delta = d == T(0) ? d : d / scale;
    const T a = math::abs(delta);
    decay = math::exp(-a);
    const T near = a * math::exp_tail(-a);
    fall = a < T(0.34) ? a - a * near : T(1) - decay;
    const T far = T(1) - fall / a;
    rest_share = a < T(0.34) ? near : far;
  }
};

template <Parametrization P>
struct Kl : Pointwise<4, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T raw, T, T prior_scale) {
    return ((P == Parametrization::scale && raw < T(0)) << 1) | ((prior_scale < T(0)) << 3);
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T loc, T raw, T prior_loc, T prior_scale) {
    const Terms<P, T> k(loc, raw, prior_loc, prior_scale);
    // t (exp(-delta) - 1 + delta) with t delta = d / prior_scale: delta itself may be infinite.
    return {T(0), k.of_ratio + math::abs(k.d) / prior_scale * k.rest_share};
  }

  // d KL / d |d| = (1 - exp(-delta)) / prior_scale,
  // d KL / d log(scale) = t exp(-delta) (1 + delta) - 1,
  // d KL / d log(prior_scale) = 1 - t (exp(-delta) + delta).
  template <typename T>
  BSL_HD static Gradients<T, 4> backward(const Numbers<T>&, Result<T> grad, T loc, T raw,
                                         T prior_loc, T prior_scale) {
    const Terms<P, T> k(loc, raw, prior_loc, prior_scale);
    const T by_loc = grad.log * (math::with_sign(k.fall, k.d) / prior_scale);
    // From 800 on exp(-delta) is 0.
    const T a = math::abs(k.delta);
    const T bounded = a > T(800) ? T(800) : a;
    const T t = T(1) + k.t_minus_one;
    const T near = k.t_minus_one - t * (k.fall - bounded * k.decay);
    const T far = t * (k.decay * (T(1) + bounded)) - T(1);
    const T by_log = bounded < T(1) ? near : far;
    const T by_raw = times_log_scale_grad<P>(by_log, raw, scale_and_log<P>(raw));
    const T by_prior = k.t_minus_one + math::abs(k.d) / prior_scale * k.rest_share;
    return {{by_loc, grad.log * by_raw, -by_loc, -(grad.log * (by_prior / prior_scale))}};
  }
};

}  // namespace laplace
}  // namespace
}  // namespace bsl
