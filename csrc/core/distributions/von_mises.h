// The von Mises distribution of angles around loc, with a concentration k.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"
#include "core/special.h"

namespace bsl {
namespace {
namespace von_mises {

// Sine and cosine of half of x - loc. Whole turns are taken off first, by the two parts of 2 pi, so
// that angles next to each other keep their digits.
template <typename T>
struct HalfAngle {
  T sine, cosine;
};

template <typename T>
BSL_HD HalfAngle<T> half_angle(T d) {
  using R = math::Real<T>;
  const T turns = (d * T(0.15915494309189535) + R::round) - R::round;
  const T r = (d - turns * (T(2) * R::pi)) - turns * (T(2) * R::pi_low);
  HalfAngle<T> h;
  math::sincospi(r * T(0.15915494309189535), h.sine, h.cosine);
  return h;
}

// log p(x) = -2 k sin^2((x - loc) / 2) - log(2 pi exp(-k) I0(k)): neither part is large where the
// density is not small.
struct LogProb : Pointwise<3, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T, T k) {
    return (k < T(0)) << 2;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T loc, T k) {
    const T sine = half_angle(x - loc).sine;
    const T away = k * T(-2) * sine * sine;
    return {T(0),
            away - (special::log_bessel(special::nan_if_negative(k)) + T(1.8378770664093453))};
  }

  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>&, Result<T> grad, T x, T loc, T k) {
    const HalfAngle<T> h = half_angle(x - loc);
    const T by_x = grad.log * (T(-2) * k * (h.sine * h.cosine));
    const T spread = special::bessel_spread(special::nan_if_negative(k));
    return {{by_x, -by_x, grad.log * (spread - T(2) * h.sine * h.sine)}};
  }
};

}  // namespace von_mises
}  // namespace
}  // namespace bsl
