// Numbers brought into an interval, as maps that are defined there alone want them.
#pragma once

#include <limits>

#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// y is the number nearest to x in it. Where one of a row was outside, the logarithm is -infinity;
// it has no gradient there.
//
// numbers: the least and the greatest number in float32, then in float64.
struct Within {
  static const char* fault(const Step& step, const Program&) {
    if (step.numbers.size() != 4) return "numbers";
    return step.inputs.size() == step.outputs.size() ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const T low = static_cast<T>(step.numbers[first<T>()]);
    const T high = static_cast<T>(step.numbers[first<T>() + 1]);
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const T* x = t.lane(step.inputs[i]);
      T* y = t.lane(step.outputs[i]);
      for (int r = 0; r < kTileRows; ++r) {
        y[r] = x[r] < low ? low : x[r] > high ? high : x[r];
        t.log[r] -= y[r] == x[r] ? 0.0 : std::numeric_limits<double>::infinity();
      }
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* y = t.lane(step.outputs[i]);
      const T* grad_y = t.grad(step.outputs[i]);
      T* grad_x = t.grad(step.inputs[i]);
      for (int r = 0; r < kTileRows; ++r) grad_x[r] += y[r] == x[r] ? grad_y[r] : T(0);
    }
  }

 private:
  template <typename T>
  static constexpr size_t first() {
    return sizeof(T) == sizeof(double) ? 2 : 0;
  }
};

}  // namespace
}  // namespace bsl
