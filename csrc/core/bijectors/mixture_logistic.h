// One component of a mixture of logistic distributions, seen from a point.
//
// With z = (x - loc) exp(-log_scale), or another multiple of x and a constant, its distribution
// function is sigmoid(z), what is left above is sigmoid(-z). Both, and their logarithms, come from
// exp(-|z|) and log(1 + exp(-|z|)), so that neither tail is lost. Ho et al., "Flow++" (2019),
// section 3.2, have the map made of them.
#pragma once

#include "core/layout.h"
#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace mixture_logistic {

// exp(-log_scale / 2), finite, as z is 0 at loc. Its square may overflow where quotients do not.
template <typename T>
BSL_HD T root_of_rate(T log_scale) {
  constexpr T most = T(1) / math::Real<T>::min_normal;
  const T root = math::exp(T(-0.5) * log_scale);
  return root > most ? most : root;
}

// What the gradients of a component's z and of the logarithm of its rate dz/dx make of its two
// parameters.
template <typename T>
struct ParameterGradients {
  T first, second;
};

// A component's parameters: what makes z of x. SlopeShift (deep_sigmoidal.h) are others.
template <typename T>
struct LocScale {
  // Whether solutions of z = y may lie far apart even where the mixture's is near.
  static constexpr bool kBroad = false;

  T loc, log_scale;
  T root;  // computed once

  BSL_HD static T factor_of(T, T log_scale) { return root_of_rate(log_scale); }

  BSL_HD T times_rate(T value) const { return value * root * root; }
  BSL_HD T z(T x) const { return (x - loc) * root * root; }
  BSL_HD T log_rate() const { return -log_scale; }
  BSL_HD T solution(T y) const { return loc + math::exp(log_scale) * y; }  // the x with z = y

  BSL_HD static T settled(T x) { return x; }

  // From those of z, of z times the rate, and of log(rate).
  BSL_HD ParameterGradients<T> gradients(T by_z, T by_rated, T by_log_rate, T, T z) const {
    // 0 times infinity: far from this component.
    const T by_rate = by_z == T(0) ? T(0) : by_z * z;
    return {-by_rated, -(by_rate + by_log_rate)};
  }
};

template <typename T>
struct Component {
  T z;
  T e;     // exp(-|z|)
  T tail;  // log(1 + e)
};

template <typename T>
BSL_HD Component<T> component(T z) {
  const T e = math::exp_minus_abs(z);
  // As in math::softplus: 1 + e is never rounded.
  const bool large = e > T(0.5);
  const T f = large ? T(0.5) * (e - T(1)) : e;
  return {z, e, math::log_of_reduced(large ? T(1) : T(0), f, T(0))};
}

template <typename T>
BSL_HD T log_cdf(T z, T tail) {
  return (z < T(0) ? z : T(0)) - tail;
}

template <typename T>
BSL_HD T log_survival(T z, T tail) {
  return (z > T(0) ? -z : T(0)) - tail;
}

// The distribution function and what is above.
template <typename T>
struct Sides {
  T below, above;
};

template <typename T>
BSL_HD Sides<T> sides(T z, T e) {
  const T large = math::plain_quotient(T(1), T(1) + e);
  const T small = e * large;
  return {z < T(0) ? small : large, z < T(0) ? large : small};
}

// A component's share in the gradients: of y by z, and of log dy/dx by z and by the logit. `below`,
// `above` and `density` are its weights in the mixture's F, 1 - F and f. Differences are taken of
// weights, which cancel where the results vanish.
template <typename T>
struct Slopes {
  T y_by_z, log_by_z, log_by_logit;
};

template <typename T>
BSL_HD Slopes<T> slopes(const Sides<T>& own, const Sides<T>& mixture, T below, T above, T density) {
  const T from_below = density - below, from_above = density - above;
  return {below * own.above + above * own.below, own.above * from_below - own.below * from_above,
          mixture.above * from_below + mixture.below * from_above};
}

// A sum of weights exp(l), by the largest logarithm and log sum exp(l - max).
template <typename T>
struct LogSum {
  T max, log;
};

// The logarithm of a component's part in dy/dx = sum f_k / F / (1 - F), but for the last factor. F
// is the smaller side: then the large numbers of a tail are those of a component and of the largest
// one, which are taken off each other first.
template <typename T>
BSL_HD T log_density(T logit, T z, T tail, T log_rate, T y, const LogSum<T>& below,
                     const LogSum<T>& above) {
  const T own_below = log_cdf(z, tail), own_above = log_survival(z, tail);
  const bool lower = y < T(0);
  const T share = lower ? ((logit + own_below) - below.max) - below.log
                        : ((logit + own_above) - above.max) - above.log;
  return (share + (lower ? own_above : own_below)) + log_rate;
}

// Of a loss: by x, by a component's logit and by its parameters.
template <typename T>
struct ComponentGradients {
  T position, logit;
  ParameterGradients<T> parameters;
};

// Of a component with such parameters.
template <typename T, typename Parameters>
BSL_HD ComponentGradients<T> component_gradients(const Parameters& own, T from_y, T from_log,
                                                 const Slopes<T>& s, T x, T z, T below, T above,
                                                 T density) {
  const T by_z = from_y * s.y_by_z + from_log * s.log_by_z;
  const T by_position = own.times_rate(by_z);
  return {by_position, from_y * (below - above) + from_log * s.log_by_logit,
          own.gradients(by_z, by_position, from_log * density, x, z)};
}

// As many components' solutions as there may be, each times this, do not overflow.
template <typename T>
constexpr T kShare = T(1) / T(2 * kMaxComponents);

// What a search for x ends with, between bounds that are the components' solutions. `total` is
// that of all of these: not finite if one is not.
template <typename T>
BSL_HD T solution(T x, T low, T high, T total) {
  const bool finite = math::abs(total) < math::Real<T>::infinity;
  const T other = low == high ? total : math::Real<T>::nan;
  return finite ? x : other;
}

}  // namespace mixture_logistic
}  // namespace
}  // namespace bsl
