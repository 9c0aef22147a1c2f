// The log density of its inputs under the standard normal distribution.
#pragma once

#include "cpu/steps/tile.h"

namespace bsl {
namespace {

struct StandardNormal {
  static const char* fault(const Step& step, const Program&) {
    return step.outputs.empty() ? nullptr : "outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    constexpr double half_log_two_pi = 0.91893853320467274;
    for (const int32_t input : step.inputs) {
      const T* z = t.lane(input);
      for (int r = 0; r < kTileRows; ++r) {
        const double wide = static_cast<double>(z[r]);
        t.log[r] -= 0.5 * wide * wide + half_log_two_pi;
      }
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    for (const int32_t input : step.inputs) {
      const T* z = t.lane(input);
      T* grad = t.grad(input);
      for (int r = 0; r < kTileRows; ++r) {
        grad[r] -= t.grad_log[r] == T(0) ? T(0) : t.grad_log[r] * z[r];
      }
    }
  }
};

}  // namespace
}  // namespace bsl
