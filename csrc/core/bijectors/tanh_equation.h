// The solution a of a + (det - 1) tanh(a) = c for det > 0, which inverts planar maps. The steps are
// those of bslfast/flows/planar.py.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

// a - tanh(a), by a continued fraction where the two are alike.
BSL_HD double less_tanh(double a, double t) {
  const double square = a * a;
  double rest = 11.0 + square / (13.0 + square / 15.0);
  rest = 3.0 + square / (5.0 + square / (7.0 + square / (9.0 + square / rest)));
  const double near = a * square / (rest + square);
  return math::abs(a) < 0.7 ? near : a - t;
}

BSL_HD double newton_of_tanh(double a, double c, double det) {
  const double t = math::tanh(a);
  return a - (less_tanh(a, t) + det * t - c) / (t * t + det * (1.0 - t * t));
}

// artanh of the nearest number in [0, 1).
BSL_HD double artanh_inside(double x) {
  constexpr double last = 1.0 - 1.1102230246251565e-16;
  const double c = x > last ? last : x > 0.0 ? x : 0.0;
  return 0.5 * (math::log1p(c) - math::log1p(-c));
}

// A bound of the solution for c >= 0, near it.
BSL_HD double bound_of_tanh(double c, double det) {
  const double m = det - 1.0;
  // m > 0: from below, as tanh(a) <= 1 and tanh(a) <= a. (c - a) / m for tanh(a) makes of a lower
  // bound an upper one, and the other way round.
  const double above = 1.0 / (m > 0.0 ? m : 1.0);
  double low = c - m > c / det ? c - m : c / det;
  const double high = artanh_inside((c - low) * above);
  const double raised = artanh_inside((c - high) * above);
  low = raised > low ? raised : low;
  // m < 0: the solution of det a - m a^3 / 3 = c, as tanh(a) >= a - a^3 / 3. Cardano's formula is
  // NaN where m is next to 0, and a next to c.
  const double third = m * (-1.0 / 3.0);
  const double k = third > 1e-300 ? third : 1e-300;
  const double p = det / (3.0 * k), q = c / (2.0 * k);
  const double u = math::exp(math::log(q + math::sqrt(q * q + p * p * p)) * (1.0 / 3.0));
  const double cubic = 2.0 * q / (u * u + p + (p / u) * (p / u));
  const double over = cubic > c ? cubic : c;
  return m > 0.0 ? low : over < c - m ? over : c - m;
}

BSL_HD double solve_tanh(double c, double det) {
  double a = math::with_sign(math::abs(bound_of_tanh(math::abs(c), det)), c);
  // On either side of 0 the function is concave or convex: Newton's steps do not swing.
  for (int i = 0; i < 7; ++i) a = newton_of_tanh(a, c, det);
  return c == 0.0 ? c : a;
}

}  // namespace
}  // namespace bsl
