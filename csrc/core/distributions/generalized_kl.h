// The generalised KL divergence: sum of p log(p / q) - p + q, for numbers p and q that need not sum
// to 1. Between Poisson distributions it is the divergence by their rates; between categorical ones
// it is theirs, with totals that normalise the logits.
//
// With log p = a - a_total, log q = b - b_total and d = log q - log p, a term is
// p (exp(d) - 1 - d) >= 0. Terms are made from d, not from p and q, and d from differences of what
// came: nothing cancels where p and q are close. An error that all of a row's d share, such as that
// of the totals, changes the sum of a categorical row by its square alone.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace generalized_kl {

// Up to |d| = log 2, from h = d / 2 and r = exp(h) - 1: exp(d) - 1 = r (r + 2) and
// exp(d) - 1 - d = r^2 + 2 (exp(h) - 1 - h).
template <typename T>
struct Near {
  bool holds;
  T minus_one, excess;

  BSL_HD explicit Near(T d) {
    holds = math::abs(d) < T(0.6931471805599453);
    const T h = T(0.5) * d;
    const T square = h * h * math::exp_tail(h);
    const T r = h + square;
    minus_one = r * (r + T(2));
    excess = r * r + T(2) * square;
  }
};

// exp(m) f without overflow in between. The root never vanishes, as f may be infinite.
template <typename T>
BSL_HD T times_exp(T m, T f) {
  const T root = math::exp(T(0.5) * m);
  const T kept = root < math::Real<T>::min_normal ? math::Real<T>::min_normal : root;
  return kept * f * kept;
}

template <typename T>
struct Terms {
  T log_p, log_q, d;
  Near<T> near;
  bool up;   // whether the far formulas start from q, which is the larger one
  T t, e;    // |d|, and exp(-|d|)
  T larger;  // the logarithm that the factors below go with

  BSL_HD Terms(T a, T b, T a_total, T b_total)
      : log_p(a - a_total), log_q(b - b_total), d((b - a) - (b_total - a_total)), near(d) {
    up = d > T(0);
    t = math::abs(d);
    e = math::exp(-t);
    larger = !near.holds && up ? log_q : log_p;
  }

  BSL_HD bool is_nothing() const { return log_p == -math::Real<T>::infinity; }
};

struct Kl : Pointwise<4, kLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T a, T b, T a_total, T b_total) {
    const Terms<T> k(a, b, a_total, b_total);
    const T bounded = k.t > T(800) ? T(800) : k.t;  // exp(-800) is 0: no 0 times infinity
    const T up = T(1) - k.e * (T(1) + bounded);
    const T down = (k.e - T(1)) + k.t;
    const T far = k.up ? up : down;
    const T kl = times_exp(k.larger, k.near.holds ? k.near.excess : far);
    return {T(0), k.is_nothing() ? math::exp(k.log_q) : kl};
  }

  // By log q: q - p. By log p: -p d.
  template <typename T>
  BSL_HD static Gradients<T, 4> backward(const Numbers<T>&, Result<T> grad, T a, T b, T a_total,
                                         T b_total) {
    const Terms<T> k(a, b, a_total, b_total);
    const T far = k.up ? T(1) - k.e : k.e - T(1);
    const T difference = times_exp(k.larger, k.near.holds ? k.near.minus_one : far);
    const T by_q = grad.log * (k.is_nothing() ? math::exp(k.log_q) : difference);
    const T product = times_exp(k.log_p, k.d);
    const T by_p = -(grad.log * (k.is_nothing() ? T(0) : product));
    return {{by_p, by_q, -by_p, -by_q}};
  }
};

}  // namespace generalized_kl
}  // namespace
}  // namespace bsl
