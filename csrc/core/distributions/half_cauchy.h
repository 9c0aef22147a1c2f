// The half-Cauchy distribution: the absolute value of a Cauchy distributed number.
//
// With z = x / scale >= 0, log p(x) = log(2 / pi) - log(1 + z^2) - log(scale).
#pragma once

#include "core/distributions/scale.h"
#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"
#include "core/special.h"

namespace bsl {
namespace {
namespace half_cauchy {

template <Parametrization P>
struct Rsample : Pointwise<1, kValue, Noise::uniform> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T raw) {
    return raw < T(0);
  }

  // tan(pi u / 2): the sine and cosine keep their digits next to their zeros.
  template <typename T>
  BSL_HD static T draw(T u) {
    T sine, cosine;
    math::sincospi(T(0.5) * u, sine, cosine);
    return sine / cosine;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T raw, T u) {
    return {scale_of<P>(raw) * draw(u), T(0)};
  }

  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>&, Result<T> grad, T raw, T u) {
    return {{product(grad.value * draw(u), scale_grad<P>(raw))}};
  }
};

template <Parametrization P>
struct LogProb : Pointwise<2, kLog> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T raw) {
    return (raw < T(0)) << 1;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T raw) {
    constexpr T log_half_pi = T(0.45158270528945486);
    const Scale<T> s = divisor<P>(raw);
    const T z = standardised<P>(x, s);
    const bool far = z == math::Real<T>::infinity;
    const T kernel = -special::log_one_plus_square(far ? x : z, far, s.log);
    const T inside = kernel - (log_unless_beside<P>(kernel, s) + log_half_pi);
    return {T(0), x < T(0) ? -math::Real<T>::infinity : inside};
  }

  // d log p / d x = -2 z / (1 + z^2) / scale, d log p / d log(scale) = (z^2 - 1) / (z^2 + 1);
  // nothing comes from x < 0.
  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T x, T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T z = divided<P>(x, s);
    const T g = x < T(0) ? T(0) : grad.log;
    const T a = math::abs(z);
    const bool large = a > T(1);
    const T w = large ? T(1) / a : a;
    const T over = T(1) / (T(1) + w * w);
    const T share = (T(1) - w) * (T(1) + w) * over;
    const T by_raw = times_log_scale_grad<P>(large ? share : -share, lifted<P>(raw), s);
    // Not by z where z may overflow: 2 z^2 / (1 + z^2) / x.
    const T beside = divided<P>(T(-2) * (w * over), s), beyond = -(T(1) + share) / x;
    return {{g * (large ? beyond : beside), g * by_raw}};
  }
};

// The KL divergence to a half-Cauchy prior: log((a + b)^2 / (4 a b)) with scales a and b.
//
// For a scale it is log(1 + q) with q = (a - b)^2 / (4 a b). Where q overflows or a underflows it
// is |log(a / b)| - log 4. For a logarithm it is 2 log cosh(l / 2) with l = log(a / b).
template <Parametrization P, typename T>
BSL_HD T log_ratio(T raw, T prior_scale) {
  return scale_and_log<P>(raw).log - math::log(prior_scale);
}

template <Parametrization P>
struct Kl : Pointwise<2, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T raw, T prior_scale) {
    return (P == Parametrization::scale && raw < T(0)) | ((prior_scale < T(0)) << 1);
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T raw, T prior_scale) {
    const T l = math::abs(log_ratio<P>(raw, prior_scale));
    if constexpr (kIsLog<P>) {
      const T w = math::expm1(-l);
      // log(1 + sinh^2(l / 2)) keeps what is small, l + 2 log((1 + exp(-l)) / 2) does not overflow.
      const bool small = l < T(1.5);
      const T log = math::log1p(small ? w * w / (T(4) + T(4) * w) : T(0.5) * w);
      return {T(0), small ? log : l + T(2) * log};
    }
    constexpr T log_4 = T(1.3862943611198906);
    const T a = scale_of<P>(raw), d = a - prior_scale;
    const T q = T(0.25) * (d / a) * (d / prior_scale);
    const T far_above = math::Real<T>::min_normal * T(4) * math::Real<T>::ulp_is_one;
    const bool near = (q < math::Real<T>::infinity) &
                      ((a >= math::Real<T>::min_normal) | (prior_scale < far_above));
    return {T(0), near ? math::log1p(near ? q : T(0)) : l - log_4};
  }

  // d KL / d log(a) = (a - b) / (a + b) = tanh(l / 2).
  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T raw, T prior_scale) {
    const T by_log = grad.log * share(raw, prior_scale);
    return {{times_log_scale_grad<P>(by_log, raw, scale_and_log<P>(raw)), -(by_log / prior_scale)}};
  }

 private:
  template <typename T>
  BSL_HD static T share(T raw, T prior_scale) {
    if constexpr (kIsLog<P>) return math::tanh(T(0.5) * log_ratio<P>(raw, prior_scale));
    const T a = T(0.5) * scale_of<P>(raw), b = T(0.5) * prior_scale;  // or a + b may overflow
    const bool finite = (a < math::Real<T>::infinity) & (b < math::Real<T>::infinity);
    const T limit = a > b ? T(1) : a < b ? T(-1) : a - b;
    return finite ? (a - b) / (a + b) : limit;
  }
};

}  // namespace half_cauchy
}  // namespace
}  // namespace bsl
