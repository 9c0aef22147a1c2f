#pragma once

#include "core/math.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// y = x sigmoid(g), a gated linear unit. inputs: all x, then all g.
struct Gate {
  static const char* fault(const Step& step, const Program&) {
    return step.inputs.size() == 2 * step.outputs.size() ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const size_t n = step.outputs.size();
    for (size_t i = 0; i < n; ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* g = t.lane(step.inputs[n + i]);
      T* y = t.lane(step.outputs[i]);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) y[r] = x[r] * math::sigmoid(g[r]);
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const size_t n = step.outputs.size();
    for (size_t i = 0; i < n; ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* g = t.lane(step.inputs[n + i]);
      const T* grad_y = t.grad(step.outputs[i]);
      T* grad_x = t.grad(step.inputs[i]);
      T* grad_g = t.grad(step.inputs[n + i]);
      for (int r = 0; r < kTileRows; ++r) {
        const T open = math::sigmoid(g[r]);
        grad_x[r] += grad_y[r] * open;
        grad_g[r] += grad_y[r] * x[r] * open * (T(1) - open);
      }
    }
  }
};

}  // namespace
}  // namespace bsl
