// What both sides share of the maps by Bernstein polynomials: see rows/bernstein.cpp.
//
// Steps between coefficients, made from raw parameters, and all that is made of them are double,
// whatever T is: products of steps and powers go beyond the range of float, and what they add up to
// is the map's slope, however small.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace bernstein {

// Steps beyond these count as these: no slope is 0 or infinite.
constexpr double kLeastStep = 1e-290, kMostStep = 1e290;

// Where softplus(raw) and sigmoid(raw) are exp(raw), they are squares: float holds their roots.
BSL_HD bool is_square(float raw) { return raw < -34.0f; }
BSL_HD bool is_square(double) { return false; }

template <typename T>
BSL_HD double squared_if(bool square, T root) {
  const double value = static_cast<double>(root);
  return square ? value * value : value;
}

// softplus(raw).
template <typename T>
BSL_HD double step(T raw) {
  const bool square = is_square(raw);
  const double value = squared_if(square, math::softplus(square ? T(0.5) * raw : raw));
  const double risen = value < kLeastStep ? kLeastStep : value;
  return risen > kMostStep ? kMostStep : risen;
}

// Its derivative.
template <typename T>
BSL_HD double step_gradient(T raw) {
  const bool square = is_square(raw);
  return squared_if(square, math::sigmoid(square ? T(0.5) * raw : raw));
}

// C(degree, k) for all k.
constexpr void binomials(int degree, double* out) {
  for (int d = 0; d <= degree; ++d) {
    out[d] = 1;
    for (int k = d - 1; k > 0; --k) out[k] += out[k - 1];
  }
}

struct Place {
  double t, u;     // distances from both ends, in units of the interval
  double missing;  // exactly what rounding leaves of 1 - (t + u)
  double beyond;   // how far out, times the factor from D to the slope
};

BSL_HD Place place(double x, double bound, double factor) {
  const double low = x < -bound ? -bound : x;
  const double inside = low > bound ? bound : low;
  const double t = (bound + inside) / (2 * bound);
  const double u = (bound - inside) / (2 * bound);
  const double near = t < u ? t : u, far = t < u ? u : t;
  return {t, u, (1 - far) - near, factor * (x - inside)};
}

// The gradient of step_(k+1), given B_k, the sum of those after it, D, and what comes in by y and
// by log(D).
BSL_HD double by_step(double t, double beyond, double basis, double after, double derivative,
                      double from_y, double from_log) {
  // 0 times infinity.
  const double outside = basis == 0.0 ? 0.0 : beyond * basis;
  const double by_value = after + (t * basis + outside);
  const double through_y = from_y == 0.0 ? 0.0 : from_y * by_value;
  return through_y + from_log * (basis / derivative);
}

}  // namespace bernstein
}  // namespace
}  // namespace bsl
