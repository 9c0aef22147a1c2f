// Maps of single numbers without parameters, and their inverses: leaky relu, tanh, sigmoid,
// softplus, exp.
//
// The logarithm that comes with a value is that of the derivative. It is never made from the
// value: tanh and sigmoid round to 1 long before their derivatives vanish. Each function takes one
// exponential, e = exp(-|x|) or exp(-2 |x|), from which the value, the logarithm and the
// derivatives all follow without cancellation. What lies outside the range of a map gives NaN when
// the inverse is asked for, also in the gradient.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace elementwise {

template <typename T>
constexpr T kLog2 = T(0.69314718055994530942);

// x, or NaN where it is outside. In bits, as compilers follow a constant NaN by a branch of its
// own.
template <typename T>
BSL_HD T unless(bool outside, T x) {
  const typename math::Real<T>::Bits nan = math::bits(math::Real<T>::nan);
  return math::from_bits(math::bits(x) | (outside ? nan : 0));
}

// log(1 + f) for -1/4 <= f <= 1/2.
template <typename T>
BSL_HD T log1p_small(T f) {
  return f + math::log_tail(f);
}

// log(1 + u) for 0 <= u <= 1: 1 + u = 2 (1 + (u - 1) / 2), and u - 1 is exact above 1/2.
template <typename T>
BSL_HD T log1p_unit(T u) {
  const bool large = u > T(0.5);
  return math::log_of_reduced(large ? T(1) : T(0), large ? T(0.5) * (u - T(1)) : u, T(0));
}

// tanh(a) for a >= 0 and e = exp(-2 a): a polynomial where 1 - e would cancel.
template <typename T>
constexpr T kTanhSmall = T(0.54);

template <typename T>
BSL_HD T tanh_of(T a, T e) {
  const T z = a * a;
  const T small = a + a * (z * math::tanh_tail(z));
  const T large = math::plain_quotient(T(1) - e, T(1) + e);
  return a < kTanhSmall<T> ? small : large;
}

// y = x for x >= 0, else slope x. The slope is a number > 0.
template <bool kInverse>
struct LeakyRelu : Pointwise<1, kValueAndLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T x) {
    const T slope = numbers.at[0];
    const T log_slope = math::log(slope);  // the same for all: it leaves the loop
    const T steep = kInverse ? x / slope : x * slope;
    // x where it is neither above nor below 0: a NaN comes through.
    const T rest = x > T(0) ? T(0) : x;
    return {x < T(0) ? steep : x, x < T(0) ? (kInverse ? -log_slope : log_slope) : rest};
  }

  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>& numbers, Result<T> grad, T x) {
    const T slope = numbers.at[0];
    const T steep = kInverse ? grad.value / slope : grad.value * slope;
    return {{x < T(0) ? steep : grad.value}};
  }
};

// y = tanh(x), log y' = log(1 - y^2) = 2 (log 2 - |x| - log(1 + exp(-2 |x|))).
template <bool kInverse>
struct Tanh : Pointwise<1, kValueAndLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x) {
    const T a = math::abs(x);
    if constexpr (kInverse) {
      const T plus = log1p_unit(a), minus = math::log1p(-a);
      // Near 0 the sum of the two would cancel.
      const T log = a < T(0.5) ? log1p_small(-(a < T(0.5) ? a * a : T(0))) : plus + minus;
      return {math::with_sign(T(0.5) * (plus - minus), x), -log};
    }
    const T e = math::exp_minus_abs(T(2) * x);
    const T t = tanh_of(a, e);
    const bool small = a < kTanhSmall<T>;
    const T part = log1p_small(small ? -(t * t) : e);
    return {math::with_sign(t, x), small ? part : T(2) * ((kLog2<T> - a) - part)};
  }

  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>&, Result<T> grad, T x) {
    if constexpr (kInverse) {
      // The slope is 1 / (1 - y^2). In partial fractions, so that what cancels near -1 and 1 does
      // so before it is divided by next to nothing; below likewise.
      const T y = unless(math::abs(x) > T(1), x);
      const T half = T(0.5) * grad.value;
      return {{(half - grad.log) / (T(1) + y) + (half + grad.log) / (T(1) - y)}};
    }
    const T e = math::exp_minus_abs(T(2) * x);
    const T root = math::plain_quotient(T(2), T(1) + e);
    const T t = math::with_sign(tanh_of(math::abs(x), e), x);
    return {{grad.value * (e * root * root) - grad.log * (T(2) * t)}};
  }
};

// y = 1 / (1 + exp(-x)), log y' = log(y (1 - y)) = -|x| - 2 log(1 + exp(-|x|)).
template <bool kInverse>
struct Sigmoid : Pointwise<1, kValueAndLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x) {
    if constexpr (kInverse) {
      // With c = min(y, 1 - y), exact, the logit is -+(log c - log(1 - c)). In the middle, where
      // it is small, both logarithms are those of doubled numbers.
      const T c = x < T(0.5) ? x : T(1) - x;
      const bool middle = c > T(0.25);
      const T low = math::log(middle ? T(2) * c : c);
      const T high = log1p_small(middle ? T(1) - T(2) * c : (c > T(0) ? -c : T(0)));
      const T log = (middle ? T(2) * kLog2<T> : T(0)) - (low + high);
      return {x < T(0.5) ? low - high : high - low, log};
    }
    const T e = math::exp_minus_abs(x);
    return {math::sigmoid(x), -math::abs(x) - T(2) * log1p_unit(e)};
  }

  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>&, Result<T> grad, T x) {
    if constexpr (kInverse) {
      const T y = unless((x < T(0)) | (x > T(1)), x);
      return {{(grad.value - grad.log) / y + (grad.value + grad.log) / (T(1) - y)}};
    }
    const T e = math::exp_minus_abs(x);
    const T inverse = math::plain_quotient(T(1), T(1) + e);
    const T t = math::with_sign(tanh_of(T(0.5) * math::abs(x), e), x);
    return {{grad.value * (e * inverse * inverse) - grad.log * t}};
  }
};

// y = log(1 + exp(x)), log y' = -log(1 + exp(-x)). The inverse of y > 0 is y + l with
// l = log(1 - exp(-y)), and the logarithm of its derivative is -l.
template <bool kInverse>
struct Softplus : Pointwise<1, kValueAndLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x) {
    const T e = math::exp_minus_abs(x);
    if constexpr (kInverse) {
      const bool large = x > T(1.4);  // e < 1/4
      const T l = large ? log1p_small(large ? -e : T(0)) : math::log(-math::expm1(-x));
      return {x + l, -l};
    }
    const T part = log1p_unit(e);
    const T positive = x > T(0) ? x : T(0), negative = x > T(0) ? T(0) : x;
    return {positive + part, negative - part};
  }

  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>&, Result<T> grad, T x) {
    if constexpr (kInverse) {
      const T y = unless(x < T(0), x);
      return {{(grad.value - grad.log) / -math::expm1(-y) + grad.log}};
    }
    const T e = math::exp_minus_abs(x);
    const T inverse = math::plain_quotient(T(1), T(1) + e);
    const T near = e * inverse;
    const T by_value = x < T(0) ? near : inverse, by_log = x < T(0) ? inverse : near;
    return {{grad.value * by_value + grad.log * by_log}};
  }
};

// y = exp(x), log y' = x.
template <bool kInverse>
struct Exp : Pointwise<1, kValueAndLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T x) {
    if constexpr (kInverse) {
      const T log = math::log(x);
      return {log, -log};
    }
    return {math::exp(x), x};
  }

  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>&, Result<T> grad, T x) {
    if constexpr (kInverse) return {{(grad.value - grad.log) / x}};
    return {{grad.value * math::exp(x) + grad.log}};
  }
};

}  // namespace elementwise
}  // namespace
}  // namespace bsl
