// The Bernoulli distribution, given by its logits.
//
// With p = sigmoid(l), log p(x) = x l - softplus(l), for x in [0, 1] the expectation over binary
// values. Written as ((x - [l > 0]) l) - softplus(-|l|), neither part of which is large where the
// result is small: x = 1 and a large l, or x = 0 and a very negative one.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace bernoulli {

// x - [l > 0]: what of x remains once the outcome that l prefers is taken.
template <typename T>
BSL_HD T surprise(T logit, T x) {
  return logit > T(0) ? x - T(1) : x;
}

struct LogProb : Pointwise<2, kLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T logit, T x) {
    const T z = surprise(logit, x);
    // 0 times infinity: the outcome is certain, and came.
    return {T(0), (z == T(0) ? T(0) : z * logit) - math::softplus(-math::abs(logit))};
  }

  // d log p / d logit = x - p.
  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T logit, T x) {
    const T p = math::sigmoid(-math::abs(logit));
    return {{grad.log * (surprise(logit, x) + (logit > T(0) ? p : -p)), grad.log * logit}};
  }
};

}  // namespace bernoulli
}  // namespace
}  // namespace bsl
