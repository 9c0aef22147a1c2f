// One step of an optimizer, as torch.optim does it.
//
// Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015, arXiv:1412.6980),
// algorithm 1; Loshchilov and Hutter, "Decoupled weight decay regularization" (2019,
// arXiv:1711.05101), algorithm 2; Sutskever et al., "On the importance of initialization and
// momentum in deep learning" (2013, https://proceedings.mlr.press/v28/sutskever13.html), equations
// 1 and 2, with a velocity that is not multiplied by the learning rate; Tieleman and Hinton,
// "RMSProp" (Neural networks for machine learning, lecture 6.5, 2012,
// https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/math.h"

namespace bsl {

enum class Optimizer { adam, adamw, sgd, rmsprop };
constexpr const char* kOptimizerNames[] = {"adam", "adamw", "sgd", "rmsprop"};

// SGD has a mean where it has momentum.
constexpr bool needs_mean(Optimizer kind) {
  return kind == Optimizer::adam || kind == Optimizer::adamw;
}
constexpr bool needs_mean_square(Optimizer kind) { return kind != Optimizer::sgd; }

// What stays the same in all steps.
struct OptimizerNumbers {
  Optimizer kind;
  double decay;         // of the mean of gradients: Adam's beta_1, the momentum of SGD
  double decay_square;  // of the mean of their squares: Adam's beta_2, alpha of RMSprop
  double epsilon;
};

namespace {

// The factors of one step, for all parameters.
template <typename T>
struct OptimizerStep {
  // Without weight decay. `times`: a factor of all gradients. `step`: which one this is, from 1.
  OptimizerStep(const OptimizerNumbers& o, double learning_rate, double times, int64_t step)
      : kind(o.kind),
        scale(static_cast<T>(times)),
        decay(static_cast<T>(o.decay)),
        share(static_cast<T>(1 - o.decay)),
        decay_square(static_cast<T>(o.decay_square)),
        share_square(static_cast<T>(1 - o.decay_square)),
        epsilon(static_cast<T>(o.epsilon)),
        given_rate(learning_rate) {
    if (kind == Optimizer::adamw || kind == Optimizer::adam) {
      // Both means start at 0, to which they are biased.
      const double count = static_cast<double>(step);
      learning_rate /= 1 - std::pow(o.decay, count);
      root = static_cast<T>(1 / math::sqrt(1 - std::pow(o.decay_square, count)));
    }
    rate = static_cast<T>(learning_rate);
  }

  // The same step for parameters with weight decay.
  OptimizerStep with_decay(double weight_decay) const {
    OptimizerStep s = *this;
    if (kind == Optimizer::adamw) {
      s.kept = static_cast<T>(1 - given_rate * weight_decay);
    } else {
      s.pull = static_cast<T>(weight_decay);
    }
    return s;
  }

  // n parameters, their gradients, and what the optimizer remembers of them: the mean of gradients
  // and that of their squares, as far as it has them.
  void update(int64_t n, const T* grads, T* parameters, T* mean, T* mean_square) const {
    switch (kind) {
      case Optimizer::adam:
      case Optimizer::adamw:
        return adam(n, grads, parameters, mean, mean_square);
      case Optimizer::sgd:
        return mean == nullptr ? descend(n, grads, parameters) : sgd(n, grads, parameters, mean);
      case Optimizer::rmsprop:
        return rmsprop(n, grads, parameters, mean_square);
    }
  }

 private:
  Optimizer kind;
  T scale, decay, share, decay_square, share_square, epsilon;
  double given_rate;
  T pull = T(0), kept = T(1), rate, root = T(1);

  // Where the gradient has become 0, a mean would shrink until its steps are subnormal numbers, and
  // stay there.
  static T settled(T value) {
    return math::abs(value) < 1024 * std::numeric_limits<T>::min() ? T(0) : value;
  }

  T gradient(T grad, T parameter) const { return scale * grad + pull * parameter; }

  void adam(int64_t n, const T* grads, T* parameters, T* mean, T* mean_square) const {
    const OptimizerStep s = *this;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const T g = s.gradient(grads[i], parameters[i]);
      const T m = settled(mean[i] + s.share * (g - mean[i]));
      const T v = settled(s.decay_square * mean_square[i] + s.share_square * g * g);
      mean[i] = m;
      mean_square[i] = v;
      parameters[i] = s.kept * parameters[i] - s.rate * m / (math::sqrt(v) * s.root + s.epsilon);
    }
  }

  void descend(int64_t n, const T* grads, T* parameters) const {
    const OptimizerStep s = *this;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      parameters[i] -= s.rate * s.gradient(grads[i], parameters[i]);
    }
  }

  void sgd(int64_t n, const T* grads, T* parameters, T* mean) const {
    const OptimizerStep s = *this;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const T m = settled(s.decay * mean[i] + s.gradient(grads[i], parameters[i]));
      mean[i] = m;
      parameters[i] -= s.rate * m;
    }
  }

  void rmsprop(int64_t n, const T* grads, T* parameters, T* mean_square) const {
    const OptimizerStep s = *this;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const T g = s.gradient(grads[i], parameters[i]);
      const T v = settled(s.decay_square * mean_square[i] + s.share_square * g * g);
      mean_square[i] = v;
      parameters[i] -= s.rate * g / (math::sqrt(v) + s.epsilon);
    }
  }
};

// By which factor gradients are multiplied whose squares have this sum, so that their norm is at
// most `most`; as torch.nn.utils.clip_grad_norm_ has it.
inline double clip_factor(double sum_of_squares, double most) {
  const double factor = most / (math::sqrt(sum_of_squares) + 1e-6);
  return factor > 1 ? 1 : factor;
}

template <typename T>
double sum_of_squares(int64_t n, const T* values) {
  constexpr int lanes = 16;
  double sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int j = 0; j < lanes; ++j) {
      const double value = static_cast<double>(values[i + j]);
      sums[j] += value * value;
    }
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace
}  // namespace bsl
