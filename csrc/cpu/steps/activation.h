// Activations of networks, and what makes parameters of maps of their outputs. The derivative is
// computed from the value or from the argument.
#pragma once

#include "core/math.h"
#include "core/special.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// options: the activation's place in BSL_ACTIVATIONS (core/program.h). numbers: the a and b that
// are said there.
struct Activation {
  enum Kind {
#define BSL_KIND(name, least, most) name,
    BSL_ACTIVATIONS(BSL_KIND)
#undef BSL_KIND
  };

  static const char* fault(const Step& step, const Program&) {
    struct Limits {
      size_t least, most;
    };
    constexpr Limits limits[] = {
#define BSL_LIMITS(name, least, most) {least, most},
        BSL_ACTIVATIONS(BSL_LIMITS)
#undef BSL_LIMITS
    };
    constexpr int kinds = sizeof(limits) / sizeof(Limits);
    if (step.options.size() != 1 || step.options[0] < 0 || step.options[0] >= kinds) {
      return "options";
    }
    const Limits& of_kind = limits[step.options[0]];
    const size_t numbers = step.numbers.size();
    if (numbers < of_kind.least || numbers > of_kind.most) return "numbers";
    return step.inputs.size() == step.outputs.size() ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    switch (step.options[0]) {
      case relu:
        return for_each(step, t, [](T x) { return x < T(0) ? T(0) : x; });
      case tanh:
        return for_each(step, t, [](T x) { return math::tanh(x); });
      case sigmoid:
        return for_each(step, t, [](T x) { return math::sigmoid(x); });
      case softplus: {
        const T least = step.numbers.empty() ? T(0) : static_cast<T>(step.numbers[0]);
        return for_each(step, t, [least](T x) { return math::softplus(x) + least; });
      }
      case gelu:
        return for_each(step, t, [](T x) { return x * special::normal(x).share; });
      case gelu_tanh:
        return for_each(step, t, [](T x) { return x * math::sigmoid(gelu_argument(x)); });
      case exp:
        return for_each(step, t, [](T x) { return math::exp(x); });
      case linear: {
        const T a = static_cast<T>(step.numbers[0]), b = static_cast<T>(step.numbers[1]);
        return for_each(step, t, [a, b](T x) { return a * x + b; });
      }
      case log: {
        const T a = static_cast<T>(step.numbers[0]);
        return for_each(step, t, [a](T x) { return math::log(x + a); });
      }
      case softclip: {
        const T a = static_cast<T>(step.numbers[0]);
        return for_each(step, t, [a](T x) { return x / (T(1) + math::abs(x) / a); });
      }
      case raw_exp:
        // With e = exp(x): e + log(1 - exp(-e)).
        return for_each(step, t, [](T x) {
          const T e = math::exp(x);
          return e + math::log(-math::expm1(-e));
        });
      default:
        return for_each(step, t, [](T x) { return x * math::sigmoid(x); });
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    switch (step.options[0]) {
      case relu:
        // Chosen, not multiplied: an infinite gradient of an inactive unit is 0.
        return add_gradients(step, t, [](T grad, T, T y) { return y > T(0) ? grad : T(0); });
      case tanh:
        return pull_back(step, t, [](T, T y) { return (T(1) - y) * (T(1) + y); });
      case sigmoid:
        return pull_back(step, t, [](T, T y) { return y * (T(1) - y); });
      case softplus:
        return pull_back(step, t, [](T x, T) { return math::sigmoid(x); });
      case gelu:
        return pull_back(step, t, [](T x, T) {
          const special::Normal<T> at = special::normal(x);
          return at.share + x * at.density;
        });
      case gelu_tanh:
        return pull_back(step, t, [](T x, T y) {
          const T u = gelu_argument(x), s = math::sigmoid(u);
          return s + y * math::sigmoid(-u) * (T(1.5957691216057308) * (T(1) + T(0.134145) * x * x));
        });
      case exp:
        return pull_back(step, t, [](T, T y) { return y; });
      case linear: {
        const T a = static_cast<T>(step.numbers[0]);
        return pull_back(step, t, [a](T, T) { return a; });
      }
      case log: {
        const T a = static_cast<T>(step.numbers[0]);
        return pull_back(step, t, [a](T x, T) { return T(1) / (x + a); });
      }
      case softclip: {
        const T a = static_cast<T>(step.numbers[0]);
        return pull_back(step, t, [a](T x, T) {
          const T d = T(1) + math::abs(x) / a;
          return T(1) / (d * d);
        });
      }
      case raw_exp:
        return pull_back(step, t, [](T x, T) {
          const T e = math::exp(x);
          return e / -math::expm1(-e);
        });
      default:
        return pull_back(step, t, [](T x, T y) {
          const T s = math::sigmoid(x);
          return s + y * (T(1) - s);
        });
    }
  }

 private:
  // The argument of the sigmoid that is 1/2 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)) / 2.
  template <typename T>
  BSL_HD static T gelu_argument(T x) {
    return T(1.5957691216057308) * (x + T(0.044715) * x * x * x);
  }

  template <typename T, typename F>
  static void for_each(const Step& step, const TileOf<T>& t, const F& f) {
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const T* x = t.lane(step.inputs[i]);
      T* y = t.lane(step.outputs[i]);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) y[r] = f(x[r]);
    }
  }

  template <typename T, typename F>
  static void pull_back(const Step& step, const TileOf<T>& t, const F& derivative) {
    // A gradient of 0 stays 0, also where the derivative is NaN.
    add_gradients(step, t,
                  [&](T grad, T x, T y) { return grad == T(0) ? T(0) : grad * derivative(x, y); });
  }

  template <typename T, typename F>
  static void add_gradients(const Step& step, const TileOf<T>& t, const F& f) {
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* y = t.lane(step.outputs[i]);
      const T* grad_y = t.grad(step.outputs[i]);
      T* grad_x = t.grad(step.inputs[i]);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        grad_x[r] += f(grad_y[r], x[r], y[r]);
      }
    }
  }
};

}  // namespace
}  // namespace bsl
