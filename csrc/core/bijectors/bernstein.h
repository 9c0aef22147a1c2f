// Steps between the coefficients of a Bernstein polynomial, made from raw parameters.
//
// In double, whatever T is: products of steps and powers go beyond the range of float, and what
// they add up to is the map's slope, however small.
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

}  // namespace bernstein
}  // namespace
}  // namespace bsl
