// The log density of its inputs under the standard normal distribution, or its negative.
#pragma once

#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// options: whether it is the negative; none: it is not.
struct StandardNormal {
  static const char* fault(const Step& step, const Program&) {
    if (step.options.size() > 1) return "options";
    return step.outputs.empty() ? nullptr : "outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    constexpr double half_log_two_pi = 0.91893853320467274;
    const double sign = sign_of(step);
    for (const int32_t input : step.inputs) {
      const T* z = t.lane(input);
      for (int r = 0; r < kTileRows; ++r) {
        const double wide = static_cast<double>(z[r]);
        t.log[r] -= sign * (0.5 * wide * wide + half_log_two_pi);
      }
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const T sign = static_cast<T>(sign_of(step));
    for (const int32_t input : step.inputs) {
      const T* z = t.lane(input);
      T* grad = t.grad(input);
      for (int r = 0; r < kTileRows; ++r) {
        grad[r] -= t.grad_log[r] == T(0) ? T(0) : sign * t.grad_log[r] * z[r];
      }
    }
  }

 private:
  static double sign_of(const Step& step) {
    return !step.options.empty() && step.options[0] != 0 ? -1.0 : 1.0;
  }
};

}  // namespace
}  // namespace bsl
