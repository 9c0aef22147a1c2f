// One component of a mixture of logistic distributions, seen from a point.
//
// With z = (x - loc) exp(-log_scale), or another multiple of x and a constant, its distribution
// function is sigmoid(z), what is left above is sigmoid(-z). Both, and their logarithms, come from
// exp(-|z|) and log(1 + exp(-|z|)), so that neither tail is lost. Ho et al., "Flow++" (2019,
// arXiv:1902.00275), section 3.2, have the map made of them.
#pragma once

#include "core/layout.h"
#include "core/math.h"
#include "core/platform.h"
#include "core/product.h"

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

// Where what z is made of may overflow though it does not: elsewhere x changes nothing as large.
template <typename T>
BSL_HD bool is_wide(T x) {
  return math::abs(x) > T(sizeof(T) == 4 ? 1e30 : 1e290);
}

// x, but the nearest finite number if `of` is one: a solution that a search may start from.
template <typename T>
BSL_HD T finite_where(T of, T x) {
  constexpr T most = math::Real<T>::max;
  const T below = x > most ? most : x;
  const T inside = below < -most ? -most : below;
  return math::abs(of) <= most ? inside : x;
}

// What a search between such bounds ends with: at the end of the numbers, beyond it.
template <typename T>
BSL_HD T settled(T x) {
  return math::abs(x) > T(0.99999) * math::Real<T>::max ? x * math::Real<T>::infinity : x;
}

// The gradients that arrive at a component: by its z, by z times the rate dz/dx, by the logarithm
// of this rate, and by the solution x of the inverse map. A component's share of the last one is
// that of its density. `z` has what comes through y, in both directions. `plain_z` and `rated` have
// it in the forward map alone: in the inverse, `solution` has it instead.
template <typename T>
struct Arriving {
  T z, plain_z, rated, log_rate, solution;
};

// The gradients of a component's two parameters, made of these.
template <typename T>
struct ParameterGradients {
  T first, second;
};

// A component's parameters: what makes z of x. SlopeShift (deep_sigmoidal.h) are others.
template <typename T>
struct LocScale {
  // Whether solutions of z = y may lie far apart even where the mixture's is near; if not, they are
  // so where they are further apart than this.
  static constexpr bool kBroad = false;
  static constexpr T kApart = T(1e8);
  // Whether z keeps what is lost beside x: a component may be narrower than x is exact.
  static constexpr bool kKeepsRest = true;

  T loc, log_scale;
  T root;  // computed once

  BSL_HD static T factor_of(T, T log_scale) { return root_of_rate(log_scale); }

  // How large the rate is, or a number that is not smaller.
  BSL_HD T rate() const { return root * root; }

  // Half of how far x is from loc: all of it may overflow, where x is wide (see is_wide).
  BSL_HD T half_way(T x) const { return T(0.5) * x - T(0.5) * loc; }

  BSL_HD T times_rate(T value) const { return value * root * root; }
  BSL_HD T z(T x) const { return (x - loc) * root * root; }
  BSL_HD T wide_z(T x) const { return half_way(x) * root * (root + root); }
  // z at x + rest, a sum in which `rest` would be lost.
  BSL_HD T z(T x, T rest) const { return ((x - loc) + rest) * root * root; }
  BSL_HD T log_rate() const { return -log_scale; }
  // log|z|, also where z overflows; but for a number that all components share.
  BSL_HD T log_distance(T x) const { return math::log(math::abs(half_way(x))) - log_scale; }

  // The x with z = y.
  BSL_HD T solution(T y) const {
    constexpr T least = math::Real<T>::min_normal;  // not 0, by which an infinite y would be NaN
    const T inverse = root_of_rate(-log_scale);
    const T half = T(0.5) * (inverse < least ? least : inverse);
    // A parameter that is infinite is no overflow.
    const T given = y + (loc - loc) + (log_scale - log_scale);
    return finite_where(given, T(2) * (T(0.5) * loc + y * half * (half + half)));
  }

  BSL_HD ParameterGradients<T> gradients(const Arriving<T>& by, T x, T rest) const {
    const T by_scale = product(by.solution, settled((x - loc) + rest));
    const T own_z = is_wide(x) ? wide_z(x) : z(x, rest);
    return {by.solution - by.rated, by_scale - (product(by.plain_z, own_z) + by.log_rate)};
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

// gradient / slope, where 1 / slope may overflow though this does not.
template <typename T>
BSL_HD T over_slope(T gradient, T log_slope) {
  const T root = root_of_rate(log_slope);
  return gradient * root * root;
}

// Gradients of a loss: by x, by a component's logit and by its parameters.
template <typename T>
struct ComponentGradients {
  T position, logit;
  ParameterGradients<T> parameters;
};

// The gradients of a component with such parameters. They come from those by y and by the
// logarithm, for the inverse map also from that by its result x.
template <bool kInverse, typename T, typename Parameters>
BSL_HD ComponentGradients<T> component_gradients(const Parameters& own, T from_x, T from_y,
                                                 T from_log, const Slopes<T>& s, T x, T rest,
                                                 T below, T above, T density) {
  const T by_log = from_log * s.log_by_z;
  const T by_z = product(s.y_by_z, from_y) + by_log;
  const T plain = kInverse ? by_log : by_z;
  const T by_position = own.times_rate(plain);
  const Arriving<T> by{by_z, plain, by_position, from_log * density,
                       kInverse ? from_x * density : T(0)};
  return {by_position, product(below - above, from_y) + from_log * s.log_by_logit,
          own.gradients(by, x, rest)};
}

// Where y is infinite though x is not, every component is so far away that it has no weight left.
template <typename T>
BSL_HD bool is_far(T y, T x) {
  constexpr T infinity = math::Real<T>::infinity;
  return (math::abs(y) == infinity) & (math::abs(x) < infinity);
}

// There the nearest component, if it is one at all, is put where it still has one, and the others
// beyond: their z.
template <typename T>
BSL_HD T far_z(T y, bool nearest) {
  return math::with_sign(nearest ? T(1000) : math::Real<T>::infinity, y);
}

template <typename T>
BSL_HD T rest_matters_from(T y) {
  return T(16) * (T(1) + math::abs(y));
}

// Whether what is lost beside a solution x changes the z of a component of this rate by more than z
// is rounded, and is itself a number; no more than `most_rest` is lost. A search for it may end so
// many eps away.
template <typename T>
BSL_HD bool rest_matters(T rate, T x, T y) {
  return (math::abs(x) < math::Real<T>::infinity) & (rate < T(0.01) / math::Real<T>::min_normal) &
         (rate * math::abs(x) > rest_matters_from(y));
}

template <typename T>
BSL_HD T most_rest(T x) {
  return T(sizeof(T) == 4 ? 4.8e-7 : 8.9e-16) * math::abs(x);
}

// Components may be so narrow that what is lost beside x is no number of type T, or that it would
// have to make up for a last digit of x. Where y is missed for that reason, x is put at the loc of
// such a component, within the jump, and what is lost beside it is looked for in units of its
// scale.
template <typename T>
BSL_HD bool is_narrow(T rate) {
  return !(rate < T(0.01) / math::Real<T>::min_normal);
}

// Whether a search for y ended where its function is another number, `value`.
template <typename T>
BSL_HD bool is_missed(T y, T value) {
  constexpr T most = T(sizeof(T) == 4 ? 3.8e-6 : 7.1e-15);  // 32 eps
  return !(math::abs(y - value) <= most * (T(1) + math::abs(y)));
}

template <typename T>
struct Narrow {
  bool found;
  T loc, log_scale;  // log_scale: of the unit
  T units;           // what is lost beside loc

  // How far a component's loc may be from where a search ended.
  BSL_HD static T reach(T x) {
    constexpr T least = math::Real<T>::min_normal;
    return most_rest(x) > least ? most_rest(x) : least;
  }

  // Looks at a component, where a search for y has ended at x.
  BSL_HD void look_at(const LocScale<T>& own, T x, T y) {
    const T distance = math::abs(own.loc - x);
    const bool matters = is_narrow(own.rate()) | (own.rate() * math::abs(x) > rest_matters_from(y));
    if (!(distance <= reach(x)) || !matters) return;
    const bool nearer = !found || distance < math::abs(loc - x);
    const bool finer = found && own.loc == loc && own.log_scale < log_scale;
    if (nearer || finer) *this = {true, own.loc, own.log_scale, T(0)};
  }

  // Units in the scale of a component. One that is narrower is elsewhere, as far as from one number
  // to the next: units make no difference to it.
  BSL_HD T rate(T own) const { return own < log_scale ? T(0) : math::exp(log_scale - own); }

  // What is lost beside loc, as a number that may underflow.
  BSL_HD T rest() const {
    const T root = root_of_rate(-log_scale);
    return units * root * root;
  }

  // How many units there may be: as many as that, if it is a number.
  BSL_HD T most() const {
    constexpr T greatest = T(0.25) * math::Real<T>::max;
    const T root = root_of_rate(log_scale), units_there = reach(loc) * root * root;
    return units_there < greatest ? units_there : greatest;
  }
};

// A component where x is given by units. What comes from the logarithm is by units, too: by x it
// would be as large as a rate, which may be no number.
template <typename T>
struct Placed {
  LocScale<T> own;
  const Narrow<T>& at;
  T z;
  T by_x;  // the gradient of x that did not come from the logarithm, this component's share

  BSL_HD T times_rate(T value) const { return value * at.rate(own.log_scale); }
  BSL_HD ParameterGradients<T> gradients(const Arriving<T>& by, T x, T) const {
    const T root = root_of_rate(at.log_scale), apart = x - own.loc;
    // A wide component has a small share, and is many units away.
    const T share = by.solution * root;
    const T by_apart = (share == T(0)) | (apart == T(0)) ? T(0) : share * apart * root;
    const T by_scale = product(by_x, apart + at.rest()) + product(by.solution, at.units) + by_apart;
    return {by_x + (by.solution - by.rated) * root * root,
            by_scale - (product(by.plain_z, z) + by.log_rate)};
  }
};

// The gradients by units and by y where x is given by units. `log_by_units` is the derivative of
// the logarithm of the forward map.
template <typename T>
struct UnitGradients {
  T units, y;

  BSL_HD UnitGradients(const Narrow<T>& at, T by_x, T by_log, T log_by_units, T log_slope)
      : units(-product(by_log, log_by_units)),
        y(-(over_slope(by_x, log_slope) + over_slope(units, log_slope + at.log_scale))) {}
};

template <typename T>
BSL_HD T rest_size(T y) {
  return T(4) * (T(1) + math::abs(y));
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
