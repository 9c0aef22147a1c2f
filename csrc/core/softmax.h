// What softmaxes, and what is made of them, are computed with.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

template <typename T>
BSL_HD T larger(T a, T b) {
  return a > b ? a : b;
}

// exp(x - max), of which a softmax is made.
template <typename T>
BSL_HD T weight(T x, T max) {
  return math::exp(x - max);
}

// Whether a row has NaN: what is added to each of its ones and zeros.
template <typename T>
BSL_HD T nan_or_zero(T sum) {
  return sum - sum;
}

// The least that is taken off logarithms of weights: nothing at all is exp(-infinity), not NaN.
template <typename T>
constexpr T kLowest = -math::Real<T>::max;

// The distance by which components are compared where none has a weight left: the least is that of
// the nearest. What is left out is nowhere.
template <typename T>
BSL_HD T compared(T logit, T distance) {
  return logit >= kLowest<T> ? distance : math::Real<T>::infinity;
}

}  // namespace
}  // namespace bsl
