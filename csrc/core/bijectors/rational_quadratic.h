// Rational-quadratic splines: one bin's map, its inverse, its slope and its gradients.
//
// A bin of width w and height h has the chord's slope s = h / w and slopes d0, d1 at its knots. A
// point is given by its distances from both knots in units of the bin, xi and om = 1 - xi, each
// computed from its own knot: close to a knot 1 - xi would keep nothing of the other. With
//   den = s (xi^2 + om^2) + (d0 + d1) xi om
//   y = y0 + h xi (s xi + d0 om) / den,  dy/dx = s^2 (d1 xi^2 + 2 s xi om + d0 om^2) / den^2
// every term is positive and nothing cancels. Durkan et al., "Neural spline flows" (2019,
// arXiv:1906.04032), write the same functions with differences such as d0 + d1 - 2 s.
#pragma once

#include "core/math.h"
#include "core/platform.h"
#include "core/rows.h"

namespace bsl {

// What is outside the interval: the identity; lines that go on with the slopes that the spline ends
// with; the interval again; nothing.
enum class Tails { linear, affine, circular, none };
// The names that Python uses; the last one is None.
constexpr const char* kTailsNames[] = {"linear", "affine", "circular", nullptr};

// How many slopes are parameters.
BSL_HD int n_slopes(int bins, Tails tails) {
  return bins + (tails == Tails::linear ? -1 : tails == Tails::circular ? 0 : 1);
}

constexpr int kSplineVariants = 8;  // four tails, both ways

struct SplineSettings {
  int bins;
  Tails tails;
  bool inverse;
  double bound, min_width, min_height, min_derivative;

  template <typename S>
  BSL_HD explicit SplineSettings(const RowCall<S>& a)
      : bins(static_cast<int>(a.widths[1])),
        tails(static_cast<Tails>(a.variant / 2)),
        inverse(a.variant % 2 != 0),
        bound(a.numbers[0]),
        min_width(a.numbers[1]),
        min_height(a.numbers[2]),
        min_derivative(a.numbers[3]) {}
};

namespace {
namespace spline {

// exp(x) for x <= 0 in float64, to be added up to knots. Half the operations of math::exp, for a
// few ulp more.
template <typename T>
BSL_HD double softmax_numerator(double x) {
  if constexpr (sizeof(T) == 8) return math::exp(x);
  using R = math::Real<double>;
  x = x < -700.0 ? -700.0 : x;  // keeps NaN; exp(-700) is nothing beside the largest, which is 1
  const double shifted = x * R::log2_e + R::round;
  const double r = x - (shifted - R::round) * 0.6931471805599453;
  const double tail = math::polynomial(
      r, r * r, 5.000000000000011e-01, 1.6666666666666174e-01, 4.1666666666525076e-02,
      8.333333333661914e-03, 1.3888888945501508e-03, 1.984126911697889e-04, 2.480149075049429e-05,
      2.7557955233589623e-06, 2.76311988874885e-07, 2.4877499976133807e-08);
  const double power =
      math::from_bits((math::bits(shifted) - (R::round_bits - R::bias)) << R::mantissa);
  return (1.0 + (r + r * r * tail)) * power;
}

template <typename T>
struct Bin {
  T s, d0, d1;
};

template <typename T>
struct Point {
  T xi, om;
};

template <typename T>
BSL_HD T denominator(const Bin<T>& b, const Point<T>& p) {
  return b.s * (p.xi * p.xi + p.om * p.om) + (b.d0 + b.d1) * (p.xi * p.om);
}

// (y - y0) / h.
template <typename T>
BSL_HD T fraction(const Bin<T>& b, const Point<T>& p) {
  return p.xi * (b.s * p.xi + b.d0 * p.om) / denominator(b, p);
}

// dy/dx, in an order of operations that does not overflow before its result does.
template <typename T>
BSL_HD T slope(const Bin<T>& b, const Point<T>& p) {
  const T r = b.s / denominator(b, p);
  const T n = b.d1 * p.xi * p.xi + T(2) * b.s * p.xi * p.om + b.d0 * p.om * p.om;
  return r * (r * n);
}

// The point whose image has the distances u and v from the knots in y, in units of the bin: with
//   e = d0 v - d1 u,  R = sqrt(e^2 + 4 s^2 u v)  and  r = R + e,
// xi : om is 2 s u : r. R is the root of the usual formula's discriminant, but a sum of squares; r
// comes from the conjugate where e < 0.
template <typename T>
BSL_HD Point<T> solve(const Bin<T>& b, T u, T v) {
  const T e = b.d0 * v - b.d1 * u;
  const T q = T(4) * b.s * b.s * u * v;
  const T root = math::sqrt(e * e + q);
  const T conjugate = q / (root - e);
  const T r = e >= T(0) ? root + e : conjugate;
  const T su = T(2) * b.s * u;
  const T inverse = T(1) / (su + r);
  return {su * inverse, r * inverse};
}

// Gradients of a loss: by the argument, the left knot (x0, y0), the bin's size (w, h), and the
// slopes at its knots.
template <typename T>
struct Gradients {
  T argument, x0, w, y0, h, d0, d1;
};

// From the gradients of the map's result and of its log-determinant. For the inverse map the result
// is the x that solves y = f(x; parameters), so dx = (dy - df) / f'(x): x0 and w then need no
// derivative of f at all.
template <bool kInverse, typename T>
BSL_HD Gradients<T> gradients(const Bin<T>& b, const Point<T>& p, T w, T h, T grad_result,
                              T grad_log_det) {
  const T xi2 = p.xi * p.xi, om2 = p.om * p.om, cross = p.xi * p.om;
  const T inv_den = T(1) / denominator(b, p);
  const T n = b.d1 * xi2 + T(2) * b.s * cross + b.d0 * om2;
  const T inv_n = T(1) / n;
  const T inv_w = T(1) / w;
  // Derivatives of log f'. Those of f = y0 + h F follow where they are used.
  const T log_xi = T(2) * (((b.d1 - b.s) * p.xi + (b.s - b.d0) * p.om) * inv_n -
                           (b.d0 + b.d1 - T(2) * b.s) * (p.om - p.xi) * inv_den);
  const T log_s = T(2) * (T(1) / b.s + cross * inv_n - (xi2 + om2) * inv_den);
  const T log_d0 = om2 * inv_n - T(2) * cross * inv_den;
  const T log_d1 = xi2 * inv_n - T(2) * cross * inv_den;
  const T ratio = b.s * inv_den;
  const T slope = ratio * (ratio * n);

  const T by_log = kInverse ? -grad_log_det : grad_log_det;
  const T by_y = kInverse ? (grad_log_det * log_xi * inv_w - grad_result) / slope : grad_result;
  const T by_xi = kInverse ? -grad_result * w : grad_result * slope * w + by_log * log_xi;
  const T left = p.xi * (b.s * p.xi + b.d0 * p.om) * inv_den;   // F
  const T right = p.om * (b.s * p.om + b.d1 * p.xi) * inv_den;  // 1 - F
  const T by_f = by_y * h;
  const T cross_den = cross * inv_den;
  const T by_s = by_f * cross_den * ((b.d1 * xi2 - b.d0 * om2) * inv_den) + by_log * log_s;
  return {kInverse ? -by_y : by_xi * inv_w,
          -by_xi * inv_w,
          -(by_xi * p.xi + by_s * b.s) * inv_w,
          by_y,
          by_y * left + by_s * inv_w,
          by_f * cross_den * right + by_log * log_d0,
          by_log * log_d1 - by_f * cross_den * left};
}

// The nearest number in [-bound, bound]; NaN stays. Results are put there before they are rounded
// to what they are stored as: of two numbers in order, no rounding puts the first above the second.
BSL_HD double within(double x, double bound) {
  const double low = x < -bound ? -bound : x;
  return low > bound ? bound : low;
}

// x less whole periods of 2 bound: within [-bound, bound].
BSL_HD double wrapped(double x, double bound) {
  using R = math::Real<double>;
  const double period = 2 * bound;
  const double turns = x / period;
  // Rounds, and leaves alone what is an integer anyway.
  const double shifted = (turns + R::round) - R::round;
  const double whole = math::abs(turns) < R::ulp_is_one ? shifted : turns;
  return x - period * whole;
}

// The gradients of a bin's knot and size, as the logits of all bins of its axis need them. The
// gradient by a bin's probability is `before` for bins before this one, `own` for this one, and 0
// beyond. `mean` is the mean of these by the probabilities. The gradient by a logit is the
// difference from it, times the bin's probability.
struct SizeGradients {
  double before, own, mean;
};

BSL_HD SizeGradients size_gradients(double by_start, double by_size, double free, double least,
                                    double start, double size, double index, double bound) {
  const double sum = by_start * (start + bound - least * index) + by_size * (size - least);
  return {by_start * free, by_size * free, (by_start != 0.0) | (by_size != 0.0) ? sum : 0.0};
}

// The gradient of the logit of bin `k`, of this probability.
BSL_HD double logit_gradient(const SizeGradients& g, double index, double k, double probability) {
  const double at = index == k ? g.own : 0.0;
  const double centred = (index > k ? g.before : at) - g.mean;
  // Where no gradient comes in, none goes out: 0 * NaN is not 0.
  return centred == 0.0 ? 0.0 : centred * probability;
}

// In affine tails y = +-bound + excess slope: how far y is from the end of the spline.
template <bool kInverse>
BSL_HD double tail_rise(double excess, double slope) {
  return kInverse ? excess / slope : excess * slope;
}

// There dy/dx, and the gradient of the slope in a loss.
template <bool kInverse, typename T>
BSL_HD T tail_derivative(T slope) {
  return kInverse ? T(1) / slope : slope;
}
template <bool kInverse, typename T>
BSL_HD T tail_slope_gradient(T slope, T rise, T grad_result, T grad_log_det) {
  // 0 times infinity: infinitely far along the tail.
  const T by_rise = grad_result == T(0) ? T(0) : rise * grad_result;
  const T by_log = by_rise + grad_log_det;
  return (kInverse ? -by_log : by_log) / slope;
}

}  // namespace spline
}  // namespace
}  // namespace bsl
