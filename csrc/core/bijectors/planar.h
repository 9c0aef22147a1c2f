// Planar maps, which move each row z along one direction:
//
//   y = z + v tanh(w z + b), with v = u + k w so that w v = m = softplus(w u) - 1 > -1, hence
//   k = (m - w u) / (w w); det = 1 + m / cosh^2
//
// Determinants are written as sums of positive terms where they are small. Rezende and Mohamed,
// "Variational inference with normalizing flows" (2015, arXiv:1505.05770), appendix A, have them as
// differences.
#pragma once

#include "core/bijectors/tanh_equation.h"
#include "core/math.h"
#include "core/platform.h"
#include "core/rows.h"

namespace bsl {
namespace {
namespace planar {

// The map of one row.
template <typename T>
struct Map {
  T t, s, m, slope;  // tanh, 1 / cosh^2, and m with its derivative by w u
  T k, det;
};

// a = w z + b. Without a direction (w = 0) u is taken as it is, and volumes are kept.
template <typename T>
BSL_HD Map<T> map(T a, T wu, T ww) {
  const T e = math::exp_minus_abs(T(2) * a);
  const T root = math::plain_quotient(T(2), T(1) + e);
  const T s = e * root * root;
  const T t = math::tanh(a);
  const bool none = ww == T(0);
  const T soft = math::softplus(wu);
  const T m = none ? wu : soft - T(1);
  const T k = (m - wu) / (none ? T(1) : ww);
  const T det = none ? T(1) + m * s : t * t + soft * s;
  return {t, s, m, none ? T(1) : math::sigmoid(wu), k, det};
}

template <typename T>
BSL_HD T log_det(const Map<T>& p) {
  return math::log_near_one(p.m * p.s, p.det);
}

// Gradients of a loss: by a, by w u, and twice that by w w. gu and gw are the products of y's
// gradient with u and w. grad_log is the gradient of the log-determinant.
template <typename T>
struct Gradients {
  T a, wu, twice_ww;
};

template <typename T>
BSL_HD Gradients<T> gradients(const Map<T>& p, T wu, T ww, T gu, T gw, T grad_log) {
  const bool none = ww == T(0);
  const T inverse = T(1) / (none ? T(1) : ww);
  const T by_log = grad_log * (p.s / p.det);
  const T by_k = none ? T(0) : p.t * gw;
  // d m / d (w u) - 1 = -sigmoid(-w u)
  const T rest = none ? T(0) : -math::sigmoid(-wu);
  return {(gu + p.k * gw) * p.s - T(2) * (p.m * p.t) * by_log,
          by_k * (rest * inverse) + by_log * p.slope, T(-2) * (by_k * p.k) * inverse};
}

// y = z + t u + t k w, by the products of w with z, u and w, and of y's gradient with u and w.
struct Planar : RowMap<3, 1> {
  static constexpr int sums = 3, sums_with_gradient = 5, coefficients = 5;
  template <int I>
  static constexpr bool of_parameters = I == 1 || I == 2;

  template <int I, typename T>
  BSL_HD static double term(const Column<T, 3>& c) {
    const double u = static_cast<double>(c.row[1]), w = static_cast<double>(c.row[2]);
    if constexpr (I == 0) return w * static_cast<double>(c.row[0]);
    if constexpr (I == 1) return w * u;
    if constexpr (I == 2) return w * w;
    return static_cast<double>(c.grad) * (I == 3 ? u : w);
  }

  template <typename T>
  BSL_HD static Map<T> map_of(const Sums& s, const RowNumbers<T>& b) {
    return map(static_cast<T>(s.of[0] + static_cast<double>(b.of[0])), static_cast<T>(s.of[1]),
               static_cast<T>(s.of[2]));
  }

  template <typename T>
  BSL_HD static RowResult<T> forward(const Sums& s, const RowNumbers<T>& b, T) {
    const Map<T> p = map_of(s, b);
    return {log_det(p), {{p.t, p.t * p.k}}};
  }

  template <typename T>
  BSL_HD static T value(const Coefficients<T>& by, const Column<T, 3>& c) {
    return c.row[0] + (by.of[0] * c.row[1] + by.of[1] * c.row[2]);
  }

  template <typename T>
  BSL_HD static RowGradients<T> backward(const Sums& s, const RowNumbers<T>& b, T, T grad_log) {
    const Map<T> p = map_of(s, b);
    const Gradients<T> g = gradients(p, static_cast<T>(s.of[1]), static_cast<T>(s.of[2]),
                                     static_cast<T>(s.of[3]), static_cast<T>(s.of[4]), grad_log);
    return {{{g.a}}, {{g.a, g.wu, g.twice_ww, p.t, p.t * p.k}}};
  }

  template <int I, typename T>
  BSL_HD static T gradient(const Coefficients<T>& by, const Column<T, 3>& c) {
    const T z = c.row[0], u = c.row[1], w = c.row[2], g = c.grad;
    if constexpr (I == 0) return g + by.of[0] * w;
    if constexpr (I == 1) return by.of[3] * g + by.of[1] * w;
    return (by.of[4] * g + by.of[0] * z) + (by.of[1] * u + by.of[2] * w);
  }
};

// The inverse: with c = w y + b it solves a + m tanh(a) = c, and z = y - tanh(a) v.
struct PlanarInverse : RowMap<3, 1> {
  static constexpr int sums = 3, sums_with_gradient = 5, coefficients = 5;
  template <int I>
  static constexpr bool of_parameters = I == 1 || I == 2;

  template <int I, typename T>
  BSL_HD static double term(const Column<T, 3>& c) {
    return Planar::term<I>(c);
  }

  // 0 where it is for the map itself, which has it as a T.
  template <typename T>
  BSL_HD static double ww_of(const Sums& s) {
    return static_cast<T>(s.of[2]) == T(0) ? 0.0 : s.of[2];
  }

  // In float64, as the solution may be much more exact than the logarithm of the determinant.
  template <typename T>
  BSL_HD static Map<double> map_of(const Sums& s, const RowNumbers<T>& b) {
    const double wu = s.of[1], ww = ww_of<T>(s), c = s.of[0] + static_cast<double>(b.of[0]);
    // Without a direction v = u and w v = 0.
    const double det = ww == 0 ? 1.0 : math::softplus(wu);
    return map(solve_tanh(c, det), wu, ww);
  }

  template <typename T>
  BSL_HD static RowResult<T> forward(const Sums& s, const RowNumbers<T>& b, T) {
    const Map<double> p = map_of(s, b);
    return {static_cast<T>(-log_det(p)), {{static_cast<T>(-p.t), static_cast<T>(-p.t * p.k)}}};
  }

  template <typename T>
  BSL_HD static T value(const Coefficients<T>& by, const Column<T, 3>& c) {
    return Planar::value(by, c);
  }

  // The gradient of a: -(1 / cosh^2) v g + 2 m s t / det grad_log. a moves by 1 / det with c, and
  // by -t / det with m.
  template <typename T>
  BSL_HD static RowGradients<T> backward(const Sums& s, const RowNumbers<T>& b, T, T grad_log) {
    const Map<double> p = map_of(s, b);
    const double wu = s.of[1], ww = ww_of<T>(s);
    const bool none = ww == 0;
    const double inverse = 1.0 / (none ? 1.0 : ww);
    const double by_log = static_cast<double>(grad_log) / p.det * p.s;
    const double by_a = 2.0 * (p.m * p.t) * by_log - (s.of[3] + p.k * s.of[4]) * p.s;
    const double by_c = by_a / p.det;
    const double by_m = -by_log - by_c * p.t;
    const double by_k = none ? 0.0 : -p.t * s.of[4];
    const T by_wu = static_cast<T>(by_k * (-math::sigmoid(-wu) * inverse) + by_m * p.slope);
    const T twice_ww = static_cast<T>(-2.0 * (by_k * p.k) * inverse);
    const T a = static_cast<T>(by_c);
    return {{{a}}, {{a, by_wu, twice_ww, static_cast<T>(-p.t), static_cast<T>(-p.t * p.k)}}};
  }

  template <int I, typename T>
  BSL_HD static T gradient(const Coefficients<T>& by, const Column<T, 3>& c) {
    return Planar::gradient<I>(by, c);
  }
};

}  // namespace planar

}  // namespace
}  // namespace bsl
