// One component of a mixture of logistic distributions, seen from a point.
//
// With z = (x - loc) exp(-log_scale) its distribution function is sigmoid(z), what is left above
// is sigmoid(-z). Both, and their logarithms, come from exp(-|z|) and log(1 + exp(-|z|)), so that
// neither tail is lost. Ho et al., "Flow++" (2019), section 3.2, have the map made of them.
#pragma once

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

template <typename T>
struct Component {
  T z;
  T e;     // exp(-|z|)
  T tail;  // log(1 + e)
};

template <typename T>
BSL_HD Component<T> component(T x, T loc, T root) {
  const T z = (x - loc) * root * root;
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
  const T large = T(1) / (T(1) + e);
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
BSL_HD T log_density(T logit, T z, T tail, T log_scale, T y, const LogSum<T>& below,
                     const LogSum<T>& above) {
  const T own_below = log_cdf(z, tail), own_above = log_survival(z, tail);
  const bool lower = y < T(0);
  const T share = lower ? ((logit + own_below) - below.max) - below.log
                        : ((logit + own_above) - above.max) - above.log;
  return (share + (lower ? own_above : own_below)) - log_scale;
}

// Of a loss: by x (and minus that by loc), by a component's logit and by its log_scale.
template <typename T>
struct ComponentGradients {
  T position, logit, log_scale;
};

template <typename T>
BSL_HD ComponentGradients<T> component_gradients(T from_y, T from_log, const Slopes<T>& s, T z,
                                                 T root, T below, T above, T density) {
  const T by_z = from_y * s.y_by_z + from_log * s.log_by_z;
  // 0 times infinity: far from this component.
  const T by_rate = by_z == T(0) ? T(0) : by_z * z;
  return {by_z * root * root, from_y * (below - above) + from_log * s.log_by_logit,
          -(by_rate + from_log * density)};
}

// The search for the x that has a wanted y: Newton's method between bounds, which halves them where
// it does not halve its own step.
template <typename T>
struct Search {
  T x, low, high, last;
};

// No solution takes half as many steps; where the last one is a jump, a bisection does.
constexpr int kMaxSteps = 200;

template <typename T>
struct SearchStep {
  Search<T> search;
  bool more;
};

// One step, given what is left of y at x and dy/dx there.
template <typename T>
BSL_HD SearchStep<T> step(const Search<T>& s, T wanted, T rest, T slope) {
  constexpr T eps = sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16);
  const T low = rest > T(0) ? s.x : s.low;
  const T high = rest < T(0) ? s.x : s.high;
  const T newton = rest / slope;
  const T there = s.x + newton;
  const T middle = low + T(0.5) * (high - low);
  const bool good = (there >= low) & (there <= high) & (slope < math::Real<T>::infinity) &
                    (math::abs(newton) < T(0.5) * s.last);
  // What is left is what rounding leaves.
  const bool near = (math::abs(rest) <= T(2) * eps * (T(1) + math::abs(wanted))) |
                    (math::abs(newton) <= eps * math::abs(s.x));
  const T found = good ? there : near ? s.x : middle;
  const T next = rest == rest ? found : rest;
  const bool more = !near & (next != s.x) & (next == next);
  return {{next, low, high, math::abs(next - s.x)}, more};
}

// What the search ends with. `total` is that of all bounds: not finite if one is not.
template <typename T>
BSL_HD T solution(const Search<T>& s, T total) {
  const bool finite = math::abs(total) < math::Real<T>::infinity;
  const T other = s.low == s.high ? total : math::Real<T>::nan;
  return finite ? s.x : other;
}

}  // namespace mixture_logistic
}  // namespace
}  // namespace bsl
