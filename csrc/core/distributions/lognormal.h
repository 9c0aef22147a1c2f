// The log-normal distribution: exp(loc + scale * e) with a standard normal e.
#pragma once

#include "core/distributions/scale.h"
#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"

namespace bsl {
namespace {
namespace lognormal {

template <Parametrization P>
struct Rsample : Pointwise<2, kValue, Noise::normal> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T raw) {
    return (raw < T(0)) << 1;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T loc, T raw, T e) {
    return {math::exp(loc + scale_of<P>(raw) * e), T(0)};
  }

  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T loc, T raw, T e) {
    const T by_loc = product(grad.value, math::exp(loc + scale_of<P>(raw) * e));
    return {{by_loc, product(by_loc, e * scale_grad<P>(raw))}};
  }
};

// With y = log(x) and z = (y - loc) / scale, log p(x) = -z^2 / 2 - y - log(scale) - log(2 pi) / 2,
// and -infinity for x <= 0.
template <Parametrization P>
struct LogProb : Pointwise<3, kLog> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T, T raw) {
    return (raw < T(0)) << 2;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T loc, T raw) {
    constexpr T half_log_2_pi = T(0.91893853320467274178);
    const Scale<T> s = divisor<P>(raw);
    const T y = math::log(x);
    const T z = standardised<P>(y - loc, s);
    const T kernel = (T(-0.5) * z) * z;
    const T inside = kernel - (y + (log_unless_beside<P>(kernel, s) + half_log_2_pi));
    return {T(0), x <= T(0) ? -math::Real<T>::infinity : inside};
  }

  // Nothing comes from x <= 0.
  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>&, Result<T> grad, T x, T loc, T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T z = divided<P>(math::log(x) - loc, s);
    const T by_loc = divided<P>(z, s);
    const T by_raw = times_log_scale_grad<P>((z - T(1)) * (z + T(1)), lifted<P>(raw), s);
    const bool outside = x <= T(0);
    return {{outside ? T(0) : -(grad.log * ((T(1) + by_loc) / x)),
             outside ? T(0) : grad.log * by_loc, outside ? T(0) : grad.log * by_raw}};
  }
};

}  // namespace lognormal
}  // namespace
}  // namespace bsl
