// The relaxed Bernoulli distribution (binary Concrete): sigmoid((logit + l) / temperature) with
// logistic noise l, which tends to a Bernoulli sample as the temperature falls.
#pragma once

#include "core/distributions/logistic.h"
#include "core/math.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace relaxed_bernoulli {

// kHard: the value is rounded, its gradient is that of what was rounded (straight-through).
template <bool kHard>
struct Rsample : Pointwise<2, kValue, Noise::uniform> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T temperature) {
    return (temperature <= T(0)) << 1;
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>&, T logit, T temperature, T u) {
    const T y = (logit + logistic::logit_of_uniform(u)) / temperature;
    const T soft = math::sigmoid(y);
    if constexpr (!kHard) return {soft, T(0)};
    return {soft > T(0.5) ? T(1) : T(0) * soft, T(0)};  // NaN comes through
  }

  template <typename T>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T logit, T temperature,
                                         T u) {
    const T y = (logit + logistic::logit_of_uniform(u)) / temperature;
    // p (1 - p) with the p that is at most 1/2, and from |y| = 800 on 0.
    const T p = math::sigmoid(-math::abs(y));
    const T by_y = grad.value * (p * (T(1) - p));
    const T below = y > T(800) ? T(800) : y;
    const T bounded = below < T(-800) ? T(-800) : below;
    return {{by_y / temperature, -(by_y * bounded) / temperature}};
  }
};

}  // namespace relaxed_bernoulli
}  // namespace
}  // namespace bsl
