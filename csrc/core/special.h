// Special functions that a few densities need, as core/math.h has the elementary ones.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace special {

// log(1 + z^2) of z >= 0, also where z^2 overflows.
template <typename T>
BSL_HD T log_one_plus_square(T z) {
  const bool large = z > T(1);
  const T w = large ? T(1) / z : z;
  const T log_z = math::log(large ? z : T(1));
  return T(2) * log_z + math::log1p(w * w);
}

// (lgamma(y + 1/2) - lgamma(y) - log(y) / 2) y, and the derivative of what is multiplied by y here
// times -y^2, for z = 1 / y^2. The coefficients of z^k are c(k + 1) and (2 k + 1) c(k + 1) with
// c(k) = -(1 - 4^-k) B(2 k) / (k (2 k - 1)) and Bernoulli numbers B: Stirling's series of both
// functions. What is left out is less than 2e-8 for y >= 4 in float, 5e-19 for y >= 10 in double.
BSL_HD float half_step_series(float z) {
  return math::polynomial(z, z * z, -0.125f, 5.2083333e-03f, -1.5625e-03f, 1.1858259e-03f);
}
BSL_HD float half_step_slope(float z) {
  return math::polynomial(z, z * z, -0.125f, 1.5625e-02f, -7.8125e-03f, 8.3007812e-03f);
}
BSL_HD double half_step_series(double z) {
  return math::polynomial(z, z * z, -0.125, 0.005208333333333333, -0.0015625, 0.0011858258928571428,
                          -0.001681857638888889, 0.0038341175426136364, -0.012819730318509615,
                          0.05910040537516276, -0.359287374159869);
}
BSL_HD double half_step_slope(double z) {
  return math::polynomial(z, z * z, -0.125, 0.015625, -0.0078125, 0.00830078125, -0.01513671875,
                          0.04217529296875, -0.166656494140625, 0.8865060806274414,
                          -6.107885360717773);
}

// Products over i = 0, ..., N - 1 of x + i (but for i = 0) and of x + i + 1/2, and the sum over
// i = 1, ..., N - 1 of 1 / ((x + i) (x + i + 1/2)) as a fraction.
template <typename T>
struct Steps {
  T whole, half, sum, sum_below;
};

template <int N, typename T>
BSL_HD Steps<T> steps(T x) {
  if constexpr (N == 1) {
    const T b = x + T(0.5);
    return {T(1), b, T(0), T(1)};
  } else {
    const Steps<T> s = steps<N - 1>(x);
    const T a = x + T(N - 1);
    const T b = a + T(0.5);
    const T q = a * b;
    return {s.whole * a, s.half * b, s.sum * q + s.sum_below, s.sum_below * q};
  }
}

// lgamma(x + 1/2) - lgamma(x) - log(x) / 2 for x > 0, and its derivative: -1 / (8 x) and
// 1 / (8 x^2) for large x, to the last digits, where the difference of two logarithms of the gamma
// function would have none. Small x are shifted to where Stirling's series holds.
template <typename T>
struct HalfStep {
  T value, slope;
};

template <typename T>
BSL_HD HalfStep<T> log_gamma_half_step(T x) {
  constexpr int n = sizeof(T) == 4 ? 4 : 10;
  const bool small = x < T(n);
  const T c = small ? x : T(1);
  const Steps<T> s = steps<n>(c);
  const T ratio = s.whole / s.half;
  // Gamma(c + 1/2) / Gamma(c) is c ratio times that of c + n.
  const T shift = T(0.5) * math::log(c * (ratio * ratio * (c + T(n))));
  // 1 / (c (c + 1/2)) - 1 / c, which both are large for a small c.
  const T first = (T(0.5) - c) / (c * (c + T(0.5)));
  const T shift_slope = T(0.5) * (first + (s.sum / s.sum_below + T(1) / (c + T(n))));
  const T inverse = T(1) / (small ? x + T(n) : x);
  const T z = inverse * inverse;
  return {inverse * half_step_series(z) + (small ? shift : T(0)),
          (small ? shift_slope : T(0)) - z * half_step_slope(z)};
}

}  // namespace special
}  // namespace
}  // namespace bsl
