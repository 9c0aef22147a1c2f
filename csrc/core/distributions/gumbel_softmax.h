// The Gumbel-softmax (concrete) distribution: y = softmax((logits + g) / temperature) with Gumbel
// noise g = -log(-log u).
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace gumbel_softmax {

// log x for normal x > 0.
template <typename T>
BSL_HD T log_of_normal(T x) {
  const math::LogReduction<T> reduced = math::log_reduce(x, T(0));
  return math::log_of_reduced(reduced.e, reduced.m - T(1), T(0));
}

// What the softmax is of. u lies in (0, 1).
template <typename T>
BSL_HD T score(T logit, T u, T temperature) {
  return (logit - log_of_normal(-log_of_normal(u))) / temperature;
}

// The gradient of a logit; `mean` is the sum of y times its gradient.
template <typename T>
BSL_HD T gradient(T y, T grad, T mean, T temperature) {
  return y * (grad - mean) / temperature;
}

}  // namespace gumbel_softmax
}  // namespace
}  // namespace bsl
