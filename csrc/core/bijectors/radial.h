// Radial maps, which move each row z towards or away from a point z0:
//
//   y = z + c (z - z0), c = beta / (alpha + r), r = |z - z0|, alpha = softplus(raw_alpha),
//   beta = softplus(raw_beta) - alpha; det = (1 + c)^(D - 1) (1 + c alpha / (alpha + r))
//
// Where c is close to -1, y = z0 + (1 + c) (z - z0), with 1 + c as a sum of positive terms.
#pragma once

#include "core/math.h"
#include "core/platform.h"
#include "core/rows.h"

namespace bsl {
namespace {
namespace radial {

template <typename T>
struct Map {
  T r, h, alpha, c, part;  // h = 1 / (alpha + r), part = alpha h
  T det, last;             // 1 + c, and 1 + c alpha h
};

template <typename T>
BSL_HD Map<T> map(T r, T raw_alpha, T raw_beta) {
  const T alpha = math::softplus(raw_alpha), total = math::softplus(raw_beta);
  const T h = T(1) / (alpha + r);
  return {r,
          h,
          alpha,
          (total - alpha) * h,
          alpha * h,
          (total + r) * h,
          (r * h) * ((r + T(2) * alpha) * h) + (alpha * h) * (total * h)};
}

// `others` is D - 1.
template <typename T>
BSL_HD T log_det(const Map<T>& p, T others) {
  const T log = math::log_near_one(p.c, p.det);
  return (others == T(0) ? T(0) : others * log) + math::log_near_one(p.c * p.part, p.last);
}

// Gradients of a loss: by z - z0 (a factor of it), raw_alpha and raw_beta. `along` is the product
// of y's gradient with z - z0.
template <typename T>
struct Gradients {
  T along, raw_alpha, raw_beta;
};

template <typename T>
BSL_HD Gradients<T> gradients(const Map<T>& p, T others, T raw_alpha, T raw_beta, T along,
                              T grad_log) {
  const T by_c = along + grad_log * (others / p.det + p.part / p.last);
  const T by_part = grad_log * p.c / p.last;
  const T by_h = by_c * p.c * p.h;
  const T by_r = -by_h - by_part * p.part * p.h;
  // beta is softplus(raw_beta) - alpha: by alpha, c moves by -(1 + c) h in all.
  const T by_alpha = by_part * p.h * (p.r * p.h) - by_c * (p.det * p.h);
  return {p.r > T(0) ? by_r / p.r : (p.r == T(0) ? T(0) : p.r), by_alpha * math::sigmoid(raw_alpha),
          by_c * p.h * math::sigmoid(raw_beta)};
}

// By the squared distance, and the product of y's gradient with z - z0.
struct Radial : RowMap<2, 2> {
  static constexpr int sums = 1, sums_with_gradient = 2, coefficients = 3;
  template <int I>
  static constexpr bool of_parameters = false;

  template <int I, typename T>
  BSL_HD static double term(const Column<T, 2>& c) {
    const double d = static_cast<double>(c.row[0]) - static_cast<double>(c.row[1]);
    return (I == 0 ? d : static_cast<double>(c.grad)) * d;
  }

  template <typename T>
  BSL_HD static Map<T> map_of(const Sums& s, const RowNumbers<T>& raw) {
    return map(static_cast<T>(math::sqrt(s.of[0])), raw.of[0], raw.of[1]);
  }

  // Whether y is written by z0 and 1 + c, rather than by z and c; and what of the two it is.
  template <typename T>
  BSL_HD static T is_close(const Map<T>& p) {
    return p.c < T(-0.5) ? T(1) : T(0);
  }
  template <typename T>
  BSL_HD static T factor(const Map<T>& p) {
    return p.c < T(-0.5) ? p.det : p.c;
  }

  template <typename T>
  BSL_HD static RowResult<T> forward(const Sums& s, const RowNumbers<T>& raw, T width) {
    const Map<T> p = map_of(s, raw);
    return {log_det(p, width - T(1)), {{factor(p), T(0), is_close(p)}}};
  }

  template <typename T>
  BSL_HD static T value(const Coefficients<T>& by, const Column<T, 2>& c) {
    return (by.of[2] > T(0) ? c.row[1] : c.row[0]) + by.of[0] * (c.row[0] - c.row[1]);
  }

  template <typename T>
  BSL_HD static RowGradients<T> backward(const Sums& s, const RowNumbers<T>& raw, T width,
                                         T grad_log) {
    const Map<T> p = map_of(s, raw);
    const Gradients<T> g =
        gradients(p, width - T(1), raw.of[0], raw.of[1], static_cast<T>(s.of[1]), grad_log);
    return {{{g.raw_alpha, g.raw_beta}}, {{factor(p), g.along, is_close(p)}}};
  }

  template <int I, typename T>
  BSL_HD static T gradient(const Coefficients<T>& by, const Column<T, 2>& c) {
    const T moved = by.of[0] * c.grad + by.of[1] * (c.row[0] - c.row[1]);
    const bool close = by.of[2] > T(0);
    if constexpr (I == 0) return close ? moved : c.grad + moved;
    return close ? c.grad - moved : -moved;
  }
};

// The inverse: z = z0 + q (y - z0) with q = (alpha + r) / (total + r), total = alpha + beta. The
// distance of y from z0 is rho = r / q, so r solves r^2 + (total - rho) r = rho alpha.
struct RadialInverse : RowMap<2, 2> {
  static constexpr int sums = 1, sums_with_gradient = 2, coefficients = 2;
  template <int I>
  static constexpr bool of_parameters = false;

  template <int I, typename T>
  BSL_HD static double term(const Column<T, 2>& c) {
    return Radial::term<I>(c);
  }

  // In float64, as is usual of inverses.
  struct Solution {
    double rho, total, q;
    Map<double> p;
  };
  template <typename T>
  BSL_HD static Solution solution(const Sums& s, const RowNumbers<T>& raw) {
    const double raw_alpha = static_cast<double>(raw.of[0]);
    const double raw_beta = static_cast<double>(raw.of[1]);
    const double alpha = math::softplus(raw_alpha), total = math::softplus(raw_beta);
    const double rho = math::sqrt(s.of[0]);
    // Each of the two formulas is taken where it does not subtract like numbers.
    const double b = total - rho, root = math::sqrt(b * b + 4.0 * rho * alpha);
    const bool positive = b > 0;
    const double r = positive ? 2.0 * rho * alpha / (positive ? b + root : 1.0) : 0.5 * (root - b);
    return {rho, total, (alpha + r) / (total + r), map(r, raw_alpha, raw_beta)};
  }

  template <typename T>
  BSL_HD static RowResult<T> forward(const Sums& s, const RowNumbers<T>& raw, T width) {
    const Solution x = solution(s, raw);
    const double others = static_cast<double>(width) - 1.0;
    return {static_cast<T>(-log_det(x.p, others)), {{static_cast<T>(x.q)}}};
  }

  template <typename T>
  BSL_HD static T value(const Coefficients<T>& by, const Column<T, 2>& c) {
    return c.row[1] + by.of[0] * (c.row[0] - c.row[1]);
  }

  template <typename T>
  BSL_HD static RowGradients<T> backward(const Sums& s, const RowNumbers<T>& raw, T width,
                                         T grad_log) {
    const Solution x = solution(s, raw);
    const Map<double>& p = x.p;
    const double raw_alpha = static_cast<double>(raw.of[0]);
    const double raw_beta = static_cast<double>(raw.of[1]);
    // Gradients of the logarithm, with r, alpha and total as its variables.
    const Gradients<double> g = gradients(p, static_cast<double>(width) - 1.0, raw_alpha, raw_beta,
                                          0.0, -static_cast<double>(grad_log));
    const double by_q = s.of[1], over = 1.0 / (x.total + p.r);
    const double by_r = g.along * p.r + by_q * (x.total - p.alpha) * over * over;
    // rho' = last by r; r moves by -r h / last with total, r (total + r) h^2 / last with alpha.
    const double by_rho = by_r / p.last;
    const double by_alpha = by_q * over + by_rho * (p.r * p.h) * p.det;
    const double by_total = -by_q * x.q * over - by_rho * (p.r * p.h);
    const double along = x.rho > 0 ? by_rho / x.rho : (x.rho == 0 ? 0.0 : x.rho);
    return {{{static_cast<T>(g.raw_alpha + by_alpha * math::sigmoid(raw_alpha)),
              static_cast<T>(g.raw_beta + by_total * math::sigmoid(raw_beta))}},
            {{static_cast<T>(x.q), static_cast<T>(along)}}};
  }

  template <int I, typename T>
  BSL_HD static T gradient(const Coefficients<T>& by, const Column<T, 2>& c) {
    const T moved = by.of[0] * c.grad + by.of[1] * (c.row[0] - c.row[1]);
    return I == 0 ? moved : c.grad - moved;
  }
};

}  // namespace radial

}  // namespace
}  // namespace bsl
