#pragma once

#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// y = x + t, or back. inputs: all x, then all t. options: whether it goes back.
struct Additive {
  static const char* fault(const Step& step, const Program&) {
    if (step.options.size() != 1) return "options";
    return step.inputs.size() == 2 * step.outputs.size() ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const T sign = step.options[0] != 0 ? T(-1) : T(1);
    const size_t n = step.outputs.size();
    for (size_t i = 0; i < n; ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* shift = t.lane(step.inputs[n + i]);
      T* y = t.lane(step.outputs[i]);
      for (int r = 0; r < kTileRows; ++r) y[r] = x[r] + sign * shift[r];
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const T sign = step.options[0] != 0 ? T(-1) : T(1);
    const size_t n = step.outputs.size();
    for (size_t i = 0; i < n; ++i) {
      const T* grad_y = t.grad(step.outputs[i]);
      T* grad_x = t.grad(step.inputs[i]);
      T* grad_shift = t.grad(step.inputs[n + i]);
      for (int r = 0; r < kTileRows; ++r) {
        grad_x[r] += grad_y[r];
        grad_shift[r] += sign * grad_y[r];
      }
    }
  }
};

}  // namespace
}  // namespace bsl
