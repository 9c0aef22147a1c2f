// The KL divergence between two Bernoulli distributions, given by their logits a and b.
//
// It is the same for -a and -b, so a <= 0 and p = sigmoid(a) <= 1/2. With d = b - a,
//   KL = softplus(b) - softplus(a) - p d = log(1 + u) - p d,  u = p (exp(d) - 1).
// The first form is computed where d is far from 0. Near 0 it is
//   (log(1 + u) - u) + p (exp(d) - 1 - d).
// This is about -p^2 d^2 / 2 + p d^2 / 2, and at least half of the second term remains.
#pragma once

#include "core/distributions/generalized_kl.h"
#include "core/math.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace bernoulli {

template <typename T>
struct KlTerms {
  bool flipped;
  T a, b, p, d, u;
  generalized_kl::Near<T> near;

  BSL_HD KlTerms(T logit, T prior_logit)
      : flipped(logit > T(0)),
        a(flipped ? -logit : logit),
        b(flipped ? -prior_logit : prior_logit),
        p(math::sigmoid(a)),
        d(a == b ? T(0) : b - a),  // also where both are infinite
        u(T(0)),
        near(d) {
    u = p * near.minus_one;
  }
};

struct Kl : Pointwise<2, kLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T logit, T prior_logit) {
    using R = math::Real<T>;
    const KlTerms<T> k(logit, prior_logit);
    const T close = math::log_tail(k.u) + k.p * k.near.excess;
    // Where d is infinity, softplus(b) alone counts: any number will do. Where it is -infinity, p
    // is not 0 but has vanished.
    constexpr T least = R::min_normal / R::ulp_is_one;  // the smallest subnormal number
    const T p = k.p < least ? least : k.p;
    const T d = k.d < R::infinity ? k.d : T(0);
    const T far = (math::softplus(k.b) - math::softplus(k.a)) - p * d;
    return {T(0), k.near.holds ? close : far};
  }

  // By the prior's logit: sigmoid(b) - p. By the other: -p (1 - p) d.
  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T logit,
                                         T prior_logit) {
    const KlTerms<T> k(logit, prior_logit);
    const T close = (T(1) - k.p) * k.u / (T(1) + k.u);
    const T by_b = k.near.holds ? close : math::sigmoid(k.b) - k.p;
    const T by_a = k.p == T(0) ? T(0) : -(k.p * (T(1) - k.p) * k.d);
    const T given = k.flipped ? -grad.log : grad.log;
    return {{given * by_a, given * by_b}};
  }
};

}  // namespace bernoulli
}  // namespace
}  // namespace bsl
