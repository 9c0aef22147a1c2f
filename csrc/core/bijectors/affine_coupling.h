// The affine map y = x s + shift of coupling and autoregressive layers, and its inverse.
//
// The scale comes from its logarithm, so that the log-determinant is read off, never computed.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"

namespace bsl {

// With a raw parameter r: s = exp(2 tanh(r / 2)), exp(r), 2 sigmoid(r). Each is 1 at 0.
enum class ScaleFn { tanh, exp, sigmoid };
// The names that Python uses.
constexpr const char* kScaleFnNames[] = {"tanh", "exp", "sigmoid"};

namespace {
namespace affine {

// 2 tanh(raw / 2) = -2 m / (2 + m) for raw < 0, with m = expm1(raw) in [-1, 0]: one exponential, of
// full relative accuracy.
template <typename T>
BSL_HD T two_tanh_half(T raw) {
  using R = math::Real<T>;
  using Bits = typename R::Bits;
  T c = -math::abs(raw);
  c = c < R::expm1_min ? R::expm1_min : c;
  const math::ExpReduction<T> reduced = math::exp_reduce(c);
  const T r = reduced.r;
  const T part = r + (r * r * math::exp_tail(r) + reduced.r_low);  // expm1(r)
  const T power = math::from_bits(Bits(reduced.n + R::bias) << R::mantissa);
  const T m = part * power + (power - T(1));
  return math::with_sign(math::plain_quotient(T(2) * math::abs(m), T(2) + m), raw);
}

// exp(x) for |x| <= 2, which needs no care for its range.
template <typename T>
BSL_HD T exp_of_bounded(T x) {
  using R = math::Real<T>;
  const math::ExpReduction<T> reduced = math::exp_reduce(x);
  const T power = math::from_bits(typename R::Bits(reduced.n + R::bias) << R::mantissa);
  return math::exp_of_reduced(reduced.r, reduced.r_low) * power;
}

// What a map multiplies by (s, or 1 / s for the inverse), and log s. The factor is a product, with
// `second`, where it may overflow: either is finite, so that nothing times it is nothing.
template <typename T>
struct Factor {
  T factor, log;
  T second = T(1);
};

template <ScaleFn F, bool kInverse, typename T>
BSL_HD Factor<T> factor(T raw) {
  if constexpr (F == ScaleFn::sigmoid) {
    const T log = T(0.6931471805599453) - math::softplus(-raw);
    if constexpr (!kInverse) return {T(2) * math::sigmoid(raw), log};
    const math::ExpFactors<T> e = math::exp_factors(-raw);  // see multiplied
    return {e.a, log, e.b};
  }
  if constexpr (F == ScaleFn::tanh) {
    const T log = two_tanh_half(raw);
    return {exp_of_bounded(kInverse ? -log : log), log};
  }
  const math::ExpFactors<T> e = math::exp_factors(kInverse ? -raw : raw);
  return {e.a, raw, e.b};
}

// d log s / d raw.
template <ScaleFn F, typename T>
BSL_HD T log_grad(T raw, T log) {
  if constexpr (F == ScaleFn::exp) return T(1);
  if constexpr (F == ScaleFn::tanh) return T(1) - T(0.25) * log * log;
  return math::sigmoid(-raw);
}

template <ScaleFn F, bool kInverse, typename T>
BSL_HD T multiplied(T value, const Factor<T>& s) {
  const T result = value * s.factor * s.second;
  // 1 / (2 sigmoid(raw)) = (1 + exp(-raw)) / 2.
  return F == ScaleFn::sigmoid && kInverse ? T(0.5) * (value + result) : result;
}

template <ScaleFn F, bool kInverse>
struct Coupling : Pointwise<3, kValueAndLog> {
  static constexpr int passes_on = kInverse ? -1 : 1;
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x, T shift, T raw) {
    const Factor<T> s = factor<F, kInverse>(raw);
    if constexpr (kInverse) return {multiplied<F, kInverse>(x - shift, s), -s.log};
    return {multiplied<F, kInverse>(x, s) + shift, s.log};
  }

  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>&, Result<T> grad, T x, T shift, T raw) {
    const Factor<T> s = factor<F, kInverse>(raw);
    const T through = grad.value == T(0) ? T(0) : multiplied<F, kInverse>(grad.value, s);
    const T y = multiplied<F, kInverse>(kInverse ? x - shift : x, s);
    const T by_log = product(grad.value, y) + grad.log;
    const T by_raw = by_log * log_grad<F>(raw, s.log);
    return {{through, kInverse ? -through : grad.value, kInverse ? -by_raw : by_raw}};
  }
};

}  // namespace affine
}  // namespace
}  // namespace bsl
