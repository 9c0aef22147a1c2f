// Maps of features by a number of parameters each, made of the tiles of ops over rows
// (cpu/element_kernels.h).
#pragma once

#include "cpu/bernstein.h"
#include "cpu/mixture_logistic.h"
#include "cpu/rational_quadratic.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// inputs: all x, then all parameters, those of a feature side by side in the order of the op.
// options: the op's variant, and the lengths of its rows.
// numbers: those of the op.
template <template <typename> class... Tiles>
struct ElementMap {
  static_assert(kRows == kTileRows, "");

  static const char* fault(const Step& step, const Program&) {
    if (step.options.size() != 1 + kOperands || step.numbers.size() > kMaxNumbers) {
      return "options or numbers";
    }
    int64_t size = 0;
    for (int k = 0; k < kOperands; ++k) {
      // A row may be one longer than the others.
      if (width(step, k) < 0 || width(step, k) > kLongest + (k > 0)) return "lengths of rows";
      size += width(step, k);
    }
    if (step.options[0] < 0 || width(step, 0) < 1) return "options";
    if (sizeof...(Tiles) > 1 && step.options[0] >= static_cast<int>(sizeof...(Tiles))) {
      return "options";
    }
    if (!Any::fits(call_of(step))) return "lengths of rows";
    const size_t n = step.outputs.size();
    if (step.inputs.size() != n * (1 + size)) return "inputs and outputs";
    for (size_t i = n + 1; i < step.inputs.size(); ++i) {
      if (step.inputs[i] != step.inputs[i - 1] + 1) return "order of the parameters";
    }
    return nullptr;
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    with_tile<T>(step, [&](auto& tile) {
      for_each_feature(step, t, [&](size_t i, const T* x, const T* const* lanes, int32_t) {
        T logs[kTileRows];
        tile.load(x, lanes);
        tile.map(t.lane(step.outputs[i]), logs);
        for (int r = 0; r < kTileRows; ++r) t.log[r] += static_cast<double>(logs[r]);
      });
    });
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    with_tile<T>(step, [&](auto& tile) {
      for_each_feature(step, t, [&](size_t i, const T* x, const T* const* lanes, int32_t first) {
        T by_x[kTileRows];
        tile.load(x, lanes);
        tile.gradients(t.grad(step.outputs[i]), t.grad_log, by_x);
        add(by_x, kTileRows, t.grad(step.inputs[i]));
        for (int k = kOperands - 1; k >= 0; --k) {
          int32_t lane = first;
          for (int before = 0; before < k; ++before) lane += width(step, before);
          add(tile.gradient(k), width(step, k) * kTileRows, t.grad(lane));
        }
      });
    });
  }

 private:
  template <template <typename> class First, template <typename> class...>
  struct FirstOf {
    using type = First<float>;
  };
  using Any = typename FirstOf<Tiles...>::type;
  static constexpr int kOperands = Any::kOperands, kLongest = Any::kLongest;

  static int width(const Step& step, int operand) { return step.options[1 + operand]; }

  static ElementCall call_of(const Step& step) {
    ElementCall call{};
    call.variant = step.options[0];
    for (int k = 0; k < kOperands; ++k) call.widths[1 + k] = width(step, k);
    std::copy(step.numbers.begin(), step.numbers.end(), call.numbers);
    return call;
  }

  // Each variant has a tile of its own, or all have the same.
  template <typename T, typename F>
  static void with_tile(const Step& step, const F& f) {
    const ElementCall call = call_of(step);
    int variant = 0;
    const auto run = [&](auto* none) {
      if (sizeof...(Tiles) > 1 && variant++ != call.variant) return;
      std::remove_pointer_t<decltype(none)> tile(call);
      f(tile);
    };
    (run(static_cast<Tiles<T>*>(nullptr)), ...);
  }

  template <typename T, typename F>
  static void for_each_feature(const Step& step, const TileOf<T>& t, const F& f) {
    const size_t n = step.outputs.size();
    int32_t size = 0;
    for (int k = 0; k < kOperands; ++k) size += width(step, k);
    for (size_t i = 0; i < n; ++i) {
      const int32_t first = step.inputs[n + i * size];
      const T* lanes[kOperands];
      int32_t lane = first;
      for (int k = 0; k < kOperands; ++k) {
        lanes[k] = t.lane(lane);
        lane += width(step, k);
      }
      f(i, t.lane(step.inputs[i]), lanes, first);
    }
  }

  template <typename T>
  static void add(const T* from, int n, T* to) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) to[i] += from[i];
  }
};

using RationalQuadraticSpline = ElementMap<SplineTile>;
using MixtureLogisticMap = ElementMap<MixtureLogistic, MixtureLogisticInverse>;
using DeepSigmoidalMap = ElementMap<DeepSigmoidal, DeepSigmoidalInverse>;
using BernsteinMap = ElementMap<BernsteinForward, BernsteinInverse>;

}  // namespace
}  // namespace bsl
