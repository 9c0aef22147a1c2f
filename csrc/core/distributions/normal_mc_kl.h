// A normal sample z = loc + scale * e and log q(z) - log p(z). The mean of this difference is the
// KL divergence from a prior p. There is no closed form for these priors.
//
// log q(z) = -e^2 / 2 - log(scale) - log(2 pi) / 2 comes from the noise. Along the path it does not
// depend on loc: the gradient of loc is that of the prior alone.
#pragma once

#include "core/distributions/laplace.h"
#include "core/distributions/normal_log_prob.h"
#include "core/distributions/scale.h"
#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"
#include "core/special.h"

namespace bsl {
namespace {
namespace normal {

// The priors: the name that Python uses, log p(z) + log(2 pi) / 2, and the derivative of log p. The
// call's numbers are pi, sigma1, sigma2, prior_scale, prior_df.

// Processors take a hundred times as long for numbers below the smallest normal one. From the first
// distance on, squares of exp(-distance) are such, and it is below all digits of 1. From the second
// one on, it is such a number itself.
template <typename T>
constexpr T kFar = sizeof(T) == 4 ? T(43) : T(353);
template <typename T>
constexpr T kGone = sizeof(T) == 4 ? T(87) : T(708);

// pi N(0, sigma1) + (1 - pi) N(0, sigma2).
struct ScaleMixture {
  static constexpr const char* name = "scale_mixture";

  template <typename T>
  struct Parts {
    T first, second;  // 1 / sigma
    T log_odds;       // of the first component at z
    T log_weight;     // of the likelier component, its density at z included
  };

  template <typename T>
  BSL_HD static Parts<T> parts(const Numbers<T>& n, T z) {
    const T first = T(1) / n.at[1], second = T(1) / n.at[2];
    const T a = (z * first) * (z * first), b = (z * second) * (z * second);
    const T log_a = math::log(n.at[0] * first), log_b = math::log((T(1) - n.at[0]) * second);
    // (b - a) / 2 is taken as a product: a and b may be large.
    const T log_odds = (log_a - log_b) + (T(0.5) * z * (second - first)) * (z * (second + first));
    const T log_weight = log_odds > T(0) ? log_a - T(0.5) * a : log_b - T(0.5) * b;
    return {first, second, log_odds, log_weight};
  }

  template <typename T>
  BSL_HD static T log_density(const Numbers<T>& n, T z) {
    const Parts<T> p = parts(n, z);
    const T distance = math::abs(p.log_odds);
    const bool far = distance > kFar<T>;
    const T rest = math::softplus(far ? -kFar<T> : -distance);
    return p.log_weight + (far ? T(0) : rest);
  }
  template <typename T>
  BSL_HD static T score(const Numbers<T>& n, T z) {
    const Parts<T> p = parts(n, z);
    const T distance = math::abs(p.log_odds);
    // The probability of the less likely component: exp(-distance) far away.
    const bool gone = distance > kGone<T>, far = distance > kFar<T>;
    const T tail = math::exp(gone ? -kGone<T> : -distance);
    const T less = far ? (gone ? T(0) : tail) : math::sigmoid(far ? -kFar<T> : -distance);
    const T more = T(1) - less;
    const T first = p.log_odds > T(0) ? more : less, second = p.log_odds > T(0) ? less : more;
    return -(first * p.first * (p.first * z) + second * p.second * (p.second * z));
  }
};

struct LaplacePrior {
  static constexpr const char* name = "laplace";

  template <typename T>
  BSL_HD static T log_density(const Numbers<T>& n, T z) {
    return (T(kHalfLog2Pi) - math::log(T(2) * n.at[3])) - math::abs(z) / n.at[3];
  }
  template <typename T>
  BSL_HD static T score(const Numbers<T>& n, T z) {
    return -laplace::sign_of(z) / n.at[3];
  }
};

struct StudentTPrior {
  static constexpr const char* name = "student_t";

  template <typename T>
  BSL_HD static T log_density(const Numbers<T>& n, T z) {
    const T df = n.at[4];
    const T constant = special::log_gamma_half_step(T(0.5) * df).value - math::log(n.at[3]);
    const T root = math::abs(z / n.at[3]) / math::sqrt(df);
    return constant - T(0.5) * (df + T(1)) * special::log_one_plus_square(root);
  }
  template <typename T>
  BSL_HD static T score(const Numbers<T>& n, T z) {
    const T df = n.at[4], t = z / n.at[3];
    return -((df + T(1)) / (df / t + t)) / n.at[3];
  }
};

// p(z) = 1 / |z|, of which there is no integral.
struct LogUniform {
  static constexpr const char* name = "log_uniform";

  template <typename T>
  BSL_HD static T log_density(const Numbers<T>&, T z) {
    return T(kHalfLog2Pi) - math::log(math::abs(z));
  }
  template <typename T>
  BSL_HD static T score(const Numbers<T>&, T z) {
    return T(-1) / z;
  }
};

// N(0, prior_scale lambda) with lambda half-Cauchy: exp(u^2 / 2) E1(u^2 / 2) / (pi sqrt(2 pi)
// scale) with u = |z| / scale. Infinite at 0, as the log-uniform one.
struct Horseshoe {
  static constexpr const char* name = "horseshoe";

  template <typename T>
  BSL_HD static T log_density(const Numbers<T>& n, T z) {
    constexpr T log_pi = T(1.1447298858494002);
    return special::log_exp_e1(math::abs(z / n.at[3])) - (log_pi + math::log(n.at[3]));
  }
  template <typename T>
  BSL_HD static T score(const Numbers<T>& n, T z) {
    return T(-2) / z * special::exp_e1_excess(math::abs(z / n.at[3]));
  }
};

template <typename... Priors>
struct PriorList {
  static constexpr const char* names[] = {Priors::name...};
};
using Priors = PriorList<ScaleMixture, LaplacePrior, StudentTPrior, LogUniform, Horseshoe>;

template <typename Prior, Parametrization P>
struct RsampleMcKl : Pointwise<2, kValueAndLog, Noise::normal> {
  static constexpr bool checks = P == Parametrization::scale;
  template <typename T>
  BSL_HD static int invalid(T, T raw) {
    return (raw < T(0)) << 1;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& n, T loc, T raw, T e) {
    const T z = loc + scale_of<P>(raw) * e;
    const T log_q = T(-0.5) * e * e - scale_and_log<P>(raw).log;
    return {z, log_q - Prior::log_density(n, z)};
  }

  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>& n, Result<T> grad, T loc, T raw, T e) {
    const T z = loc + scale_of<P>(raw) * e;
    const T by_z = grad.value - grad.log * Prior::score(n, z);
    const T by_log = times_log_scale_grad<P>(grad.log, raw, scale_and_log<P>(raw));
    return {{by_z, product(by_z * e, scale_grad<P>(raw)) - by_log}};
  }
};

}  // namespace normal
}  // namespace
}  // namespace bsl
