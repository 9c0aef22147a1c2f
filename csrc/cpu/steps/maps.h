// Maps of features by parameters that lie in lanes beside them, such as those of a conditioner.
#pragma once

#include "core/bijectors/affine_coupling.h"
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

// y = x s + t, or back. inputs: all x, all t, then all that scales are made from. options: what
// makes them, and whether it goes back.
struct Affine {
  static const char* fault(const Step& step, const Program&) {
    if (step.options.size() != 2 || step.options[0] < 0 || step.options[0] > 2) return "options";
    return step.inputs.size() == 3 * step.outputs.size() ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    with_map(step, [&](auto map) { forward_by<decltype(map)>(step, t); });
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    with_map(step, [&](auto map) { backward_by<decltype(map)>(step, t); });
  }

 private:
  template <typename F>
  static void with_map(const Step& step, const F& f) {
    const bool back = step.options[1] != 0;
    switch (static_cast<ScaleFn>(step.options[0])) {
      case ScaleFn::tanh:
        return back ? f(affine::Coupling<ScaleFn::tanh, true>())
                    : f(affine::Coupling<ScaleFn::tanh, false>());
      case ScaleFn::exp:
        return back ? f(affine::Coupling<ScaleFn::exp, true>())
                    : f(affine::Coupling<ScaleFn::exp, false>());
      case ScaleFn::sigmoid:
        return back ? f(affine::Coupling<ScaleFn::sigmoid, true>())
                    : f(affine::Coupling<ScaleFn::sigmoid, false>());
    }
  }

  template <typename Map, typename T>
  static void forward_by(const Step& step, const TileOf<T>& t) {
    const size_t n = step.outputs.size();
    for (size_t i = 0; i < n; ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* shift = t.lane(step.inputs[n + i]);
      const T* raw = t.lane(step.inputs[2 * n + i]);
      T* y = t.lane(step.outputs[i]);
      T logs[kTileRows];
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const Result<T> result = Map::forward(Numbers<T>{}, x[r], shift[r], raw[r]);
        y[r] = result.value;
        logs[r] = result.log;
      }
      for (int r = 0; r < kTileRows; ++r) t.log[r] += static_cast<double>(logs[r]);
    }
  }

  template <typename Map, typename T>
  static void backward_by(const Step& step, const TileOf<T>& t) {
    const size_t n = step.outputs.size();
    for (size_t i = 0; i < n; ++i) {
      const T* x = t.lane(step.inputs[i]);
      const T* shift = t.lane(step.inputs[n + i]);
      const T* raw = t.lane(step.inputs[2 * n + i]);
      const T* grad_y = t.grad(step.outputs[i]);
      T* grad_x = t.grad(step.inputs[i]);
      T* grad_shift = t.grad(step.inputs[n + i]);
      T* grad_raw = t.grad(step.inputs[2 * n + i]);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const Gradients<T, 3> g = Map::backward(Numbers<T>{}, Result<T>{grad_y[r], t.grad_log[r]},
                                                x[r], shift[r], raw[r]);
        grad_x[r] += g.of[0];
        grad_shift[r] += g.of[1];
        grad_raw[r] += g.of[2];
      }
    }
  }
};

}  // namespace
}  // namespace bsl
