// The log density of a normal distribution whose scale comes from a raw parameter.
//
// With z = (x - loc) / scale, log p(x) = -z^2 / 2 - log(scale) - log(2 pi) / 2.
#pragma once

#include "core/distributions/location_scale.h"
#include "core/distributions/scale.h"
#include "core/pointwise.h"
#include "core/product.h"

namespace bsl {
namespace {
namespace normal {

constexpr double kHalfLog2Pi = 0.91893853320467274178;

// The standard normal distribution, for samples and their log densities
// (core/distributions/location_scale.h).
struct Base {
  static constexpr Noise noise = Noise::normal;

  template <typename T>
  BSL_HD static location_scale::Draw<T> draw(T e) {
    return {e, (T(-0.5) * e) * e - T(kHalfLog2Pi)};
  }
};

// kPathOnly: what reaches the log density goes through the sample alone, to which it is -e / scale:
// its own parameters are constants.
template <Parametrization P, bool kPathOnly>
struct RsampleLogProb : location_scale::RsampleLogProb<P, Base> {
  using Total = location_scale::RsampleLogProb<P, Base>;
  static constexpr int passes_on = kPathOnly ? -1 : Total::passes_on;

  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>& numbers, Result<T> grad, T loc, T raw,
                                         T e) {
    if constexpr (!kPathOnly) return Total::backward(numbers, grad, loc, raw, e);
    const Scale<T> s = divisor<P>(raw);
    const T by_log = times_log_scale_grad<P>((grad.log * e) * e, lifted<P>(raw), s);
    const T by_value = product(grad.value * e, scale_grad<P>(raw));
    return {{grad.value - grad.log * divided<P>(e, s), by_value - by_log}};
  }
};

template <Parametrization P>
struct LogProb : Pointwise<3, kLog> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T, T raw) {
    return (raw < T(0)) << 2;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T loc, T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T z = standardised<P>(x - loc, s);
    const T kernel = (T(-0.5) * z) * z;
    return {T(0), kernel - (log_unless_beside<P>(kernel, s) + T(kHalfLog2Pi))};
  }

  // d log p / d raw = (z^2 - 1) d log(scale) / d raw.
  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>&, Result<T> grad, T x, T loc, T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T z = divided<P>(x - loc, s);
    const T by_loc = grad.log * divided<P>(z, s);
    const T by_raw = times_log_scale_grad<P>((z - T(1)) * (z + T(1)), lifted<P>(raw), s);
    return {{-by_loc, by_loc, grad.log * by_raw}};
  }
};

}  // namespace normal
}  // namespace
}  // namespace bsl
