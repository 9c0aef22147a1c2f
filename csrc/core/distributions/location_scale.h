// Location-scale families: loc + scale * z, with z of a base distribution.
//
// A base is a type with
//
//   static constexpr Noise noise;              what z is made from
//   static Draw<T> draw(T noise);              z, and its log density
//   static T log_density(T z);
//   static T score(T z);                       the derivative of log_density
//
// so that log p(x) = log_density((x - loc) / scale) - log(scale). At a sample, (x - loc) / scale is
// the noise itself: the log density there does not depend on loc, and on the raw parameter only by
// log(scale).
#pragma once

#include "core/distributions/scale.h"
#include "core/pointwise.h"
#include "core/product.h"

namespace bsl {
namespace {
namespace location_scale {

template <typename T>
struct Draw {
  T z, log_density;
};

template <Parametrization P, typename Base>
struct Rsample : Pointwise<2, kValue, Base::noise> {
  static constexpr int passes_on = 0;
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T raw) {
    return (raw < T(0)) << 1;
  }

  static constexpr bool prepares_forward = P != Parametrization::scale;
  template <typename T>
  BSL_HD static T prepare(T, T raw) {
    return scale_of<P>(raw);
  }

  template <typename T>
  BSL_HD static Result<T> forward_from(const Numbers<T>&, T loc, T, T noise, T scale) {
    return {loc + scale * Base::draw(noise).z, T(0)};
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T loc, T raw, T noise) {
    return forward_from(numbers, loc, raw, noise, scale_of<P>(raw));
  }

  static constexpr bool prepares_backward = P != Parametrization::scale;
  template <typename T>
  BSL_HD static T prepare_backward(T, T raw) {
    return scale_grad<P>(raw);
  }

  template <typename T>
  BSL_HD static Gradients<T, 2> backward_from(const Numbers<T>&, Result<T> grad, T, T, T noise,
                                              T slope) {
    return {{grad.value, product(grad.value * Base::draw(noise).z, slope)}};
  }

  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>& numbers, Result<T> grad, T loc, T raw,
                                         T noise) {
    return backward_from(numbers, grad, loc, raw, noise, scale_grad<P>(raw));
  }
};

template <Parametrization P, typename Base>
struct RsampleLogProb : Pointwise<2, kValueAndLog, Base::noise> {
  static constexpr int passes_on = 0;
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T raw) {
    return (raw < T(0)) << 1;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T loc, T raw, T noise) {
    const Draw<T> drawn = Base::draw(noise);
    return {loc + scale_of<P>(raw) * drawn.z, drawn.log_density - scale_and_log<P>(raw).log};
  }

  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T, T raw, T noise) {
    const T by_value = product(grad.value * Base::draw(noise).z, scale_grad<P>(raw));
    return {{grad.value, by_value - times_log_scale_grad<P>(grad.log, raw, scale_and_log<P>(raw))}};
  }
};

template <Parametrization P, typename Base>
struct LogProb : Pointwise<3, kLog> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T, T raw) {
    return (raw < T(0)) << 2;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T loc, T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T log_density = Base::log_density(standardised<P>(x - loc, s));
    return {T(0), log_density - log_unless_beside<P>(log_density, s)};
  }

  // d log p / d log(scale) = -z score(z) - 1.
  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>&, Result<T> grad, T x, T loc, T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T z = divided<P>(x - loc, s);
    const T score = Base::score(z);
    const T by_x = grad.log * divided<P>(score, s);
    const T by_raw = times_log_scale_grad<P>(-(z * score) - T(1), lifted<P>(raw), s);
    return {{by_x, -by_x, grad.log * by_raw}};
  }
};

}  // namespace location_scale
}  // namespace
}  // namespace bsl
