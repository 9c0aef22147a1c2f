// Functions that all ops with a softmax share.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

template <typename T>
BSL_HD T larger(T a, T b) {
  return a > b ? a : b;
}

// A term exp(x - max) of a softmax.
template <typename T>
BSL_HD T weight(T x, T max) {
  return math::exp(x - max);
}

// NaN if the row's sum is NaN or infinite, else 0. Added to ones and zeros, it makes them NaN.
template <typename T>
BSL_HD T nan_or_zero(T sum) {
  return sum - sum;
}

// A lower bound of the maximum that is subtracted from logarithms of weights. If all of them are
// -infinity, so is the difference, which would be NaN without the bound.
template <typename T>
constexpr T kLowest = -math::Real<T>::max;

// Components are compared by their distances where no weight is above 0. The nearest component has
// the least distance. A component that is left out (its logit is -infinity) is infinitely far.
template <typename T>
BSL_HD T compared(T logit, T distance) {
  return logit >= kLowest<T> ? distance : math::Real<T>::infinity;
}

}  // namespace
}  // namespace bsl
