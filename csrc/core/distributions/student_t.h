// Student's t distribution with df degrees of freedom, around loc and times a scale.
#pragma once

#include "core/distributions/scale.h"
#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"
#include "core/special.h"

namespace bsl {
namespace {
namespace student_t {

// Bailey's polar method: t = sqrt(df (u1^(-2 / df) - 1)) cos(2 pi u2). With w = -2 log(u1) and
// a = w / df the root is sqrt(w phi) exp(a / 2), phi = (1 - exp(-a)) / a: Box and Muller's radius
// times two factors that tend to 1 as df grows, and nothing overflows before the result does.
template <typename T>
struct Draw {
  T t, growth;  // to be multiplied: of the two only t may be infinite
  T log_by_df;  // d log|t| / d df

  // `scale` times the draw, which itself may overflow.
  BSL_HD T times(T scale) const { return product(scale, t) * growth; }
};

template <typename T>
BSL_HD Draw<T> draw(T df, T u1, T u2) {
  const T w = T(-2) * math::log_of_normal(u1);
  const T a = w / df;
  const T decay = math::expm1(-a);
  const T quotient = -decay / a;
  const T phi = a > T(0) ? quotient : a + T(1);       // of 0 it is 1
  const T square = a > T(1) ? -decay * df : w * phi;  // w phi, also where a is infinite
  T sine, cosine;
  math::sincospi(T(2) * u2, sine, cosine);
  // 1 - phi; exp_tail holds within log(2) / 2.
  const T near = a * math::exp_tail(-a);
  const T rest = a < T(0.34) ? near : T(1) - phi;
  const math::ExpFactors<T> e = math::exp_factors(T(0.5) * a);
  const T grown = T(0.5) * a > math::kExpFactorsMost<T> ? math::Real<T>::infinity : e.a;
  return {product(cosine, math::sqrt(square) * grown), e.b, T(-0.5) * rest / (phi * df)};
}

template <Parametrization P>
struct Rsample : Pointwise<3, kValue, Noise::uniform_pair> {
  static constexpr int passes_on = 1;
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T df, T, T raw) {
    return (df <= T(0)) | ((P == Parametrization::scale && raw < T(0)) << 2);
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T df, T loc, T raw, T u1, T u2) {
    return {loc + draw(df, u1, u2).times(scale_of<P>(raw)), T(0)};
  }

  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>&, Result<T> grad, T df, T, T raw, T u1,
                                         T u2) {
    const Draw<T> d = draw(df, u1, u2);
    const T by_df = product(d.times(scale_of<P>(raw)), d.log_by_df);
    return {
        {product(grad.value, by_df), grad.value, product(grad.value, d.times(scale_grad<P>(raw)))}};
  }
};

// With z = (x - loc) / scale and y = z^2 / df,
//   log p(x) = lgamma((df + 1) / 2) - lgamma(df / 2) - log(pi df) / 2 - log(scale)
//              - (df + 1) / 2 log(1 + y).
template <Parametrization P>
struct LogProb : Pointwise<4, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T df, T, T raw) {
    return ((df <= T(0)) << 1) | ((P == Parametrization::scale && raw < T(0)) << 3);
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T df, T loc, T raw) {
    constexpr T half_log_2_pi = T(0.91893853320467274178);
    const Scale<T> s = divisor<P>(raw);
    const T d = math::abs(x - loc);
    const T z = standardised<P>(d, s);
    const bool far = z == math::Real<T>::infinity;
    const T root = (far ? d : z) / math::sqrt(df);
    const T normaliser = special::log_gamma_half_step(T(0.5) * df).value - half_log_2_pi;
    const T log = special::log_one_plus_square(root, far, s.log);
    const T kernel = T(-0.5) * (df + T(1)) * log;
    return {T(0), (normaliser - log_unless_beside<P>(kernel, s)) + kernel};
  }

  // With share = y / (1 + y):
  //   d log p / d z = -(df + 1) z / (df + z^2), d log p / d log(scale) = (df + 1) share - 1,
  //   d log p / d df = (slope - (log(1 + y) - share) + share / df) / 2,
  // where slope is of the normaliser. For large df all three terms are of the order of 1 / df^2.
  template <typename T>
  BSL_HD static Gradients<T, 4> backward(const Numbers<T>&, Result<T> grad, T x, T df, T loc,
                                         T raw) {
    const Scale<T> s = divisor<P>(raw);
    const T d = x - loc;
    const T z = divided<P>(d, s);
    const T a = math::abs(z);
    const bool is_far = a == math::Real<T>::infinity;
    const T root = (is_far ? math::abs(d) : a) / math::sqrt(df);
    const T square = is_far ? a : root * root;
    const T y = square > T(1e30) ? T(1e30) : square;  // from 1e16 on the share is 1
    const T share = y / (T(1) + y);
    const T near = math::log_tail(y) + y * share;
    const T far = special::log_one_plus_square(root, is_far, s.log) - share;
    const T rest = y < T(0.5) ? near : far;
    const T slope = special::log_gamma_half_step(T(0.5) * df).slope;
    const T by_df = T(0.5) * ((slope - rest) + share / df);
    // Not by z where z^2 or z may overflow.
    const T beside = divided<P>(z / (df + z * z), s), beyond = share / d;
    const bool large = a > math::Real<T>::ulp_is_one;
    const T by_x = -(grad.log * ((df + T(1)) * (large ? beyond : beside)));
    const T by_raw = times_log_scale_grad<P>((df + T(1)) * share - T(1), lifted<P>(raw), s);
    return {{by_x, grad.log * by_df, -by_x, grad.log * by_raw}};
  }
};

}  // namespace student_t
}  // namespace
}  // namespace bsl
