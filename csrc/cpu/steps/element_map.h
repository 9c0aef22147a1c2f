// Maps of features by a number of parameters each, by the tiles of ops over rows
// (cpu/element_tile.h).
#pragma once

#include <algorithm>
#include <type_traits>

#include "cpu/element_tile.h"
#include "cpu/steps/tile.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

// inputs: all x, then all parameters, those of a feature side by side in the order of the op.
// options: the op's variant, and the lengths of its rows.
// numbers: those of the op.
template <const RowKernels& kernels>
struct ElementMap {
  static_assert(kRows == kTileRows, "");

  static const char* fault(const Step& step, const Program&) {
    const int operands = n_operands(), longest = kernels.signature.longest;
    if (static_cast<int>(step.options.size()) != 1 + operands ||
        step.numbers.size() > kMaxNumbers) {
      return "options or numbers";
    }
    int64_t size = 0;
    for (int k = 0; k < operands; ++k) {
      // A row may be one longer than the others.
      if (width(step, k) < 0 || width(step, k) > longest + (k > 0)) return "lengths of rows";
      size += width(step, k);
    }
    if (step.options[0] < 0 || step.options[0] >= kernels.n_variants || width(step, 0) < 1) {
      return "options";
    }
    if (!kernels.fits(call_of(step))) return "lengths of rows";
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
    const ElementTile<T>& type = tile_of<T>(step);
    with_tile(type, call_of(step), [&](void* tile) {
      for_each_feature(step, t, [&](size_t i, const T* x, const T* const* lanes, int32_t) {
        T logs[kTileRows];
        type.load(tile, x, lanes);
        type.map(tile, t.lane(step.outputs[i]), logs);
        for (int r = 0; r < kTileRows; ++r) t.log[r] += static_cast<double>(logs[r]);
      });
    });
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const ElementTile<T>& type = tile_of<T>(step);
    with_tile(type, call_of(step), [&](void* tile) {
      for_each_feature(step, t, [&](size_t i, const T* x, const T* const* lanes, int32_t first) {
        T by_x[kTileRows];
        type.load(tile, x, lanes);
        type.gradients(tile, t.grad(step.outputs[i]), t.grad_log, by_x);
        add(by_x, kTileRows, t.grad(step.inputs[i]));
        for (int k = n_operands() - 1; k >= 0; --k) {
          int32_t lane = first;
          for (int before = 0; before < k; ++before) lane += width(step, before);
          add(type.gradient(tile, k), width(step, k) * kTileRows, t.grad(lane));
        }
      });
    });
  }

 private:
  static int n_operands() { return kernels.signature.inputs - 1; }

  static int width(const Step& step, int operand) { return step.options[1 + operand]; }

  static ElementCall call_of(const Step& step) {
    ElementCall call{};
    call.variant = step.options[0];
    for (int k = 0; k < n_operands(); ++k) call.widths[1 + k] = width(step, k);
    std::copy(step.numbers.begin(), step.numbers.end(), call.numbers);
    return call;
  }

  template <typename T>
  static const ElementTile<T>& tile_of(const Step& step) {
    const RowVariant& variant = kernels.variants[step.options[0]];
    if constexpr (std::is_same_v<T, double>) {
      return *variant.tile_double;
    } else {
      return *variant.tile_float;
    }
  }

  template <typename T, typename F>
  static void for_each_feature(const Step& step, const TileOf<T>& t, const F& f) {
    const size_t n = step.outputs.size();
    int32_t size = 0;
    for (int k = 0; k < n_operands(); ++k) size += width(step, k);
    for (size_t i = 0; i < n; ++i) {
      const int32_t first = step.inputs[n + i * size];
      const T* lanes[kMaxRowInputs - 1];
      int32_t lane = first;
      for (int k = 0; k < n_operands(); ++k) {
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

using RationalQuadraticSpline = ElementMap<BSL_ISA::rational_quadratic_spline_kernels>;
using MixtureLogisticMap = ElementMap<BSL_ISA::mixture_logistic_transform_kernels>;
using DeepSigmoidalMap = ElementMap<BSL_ISA::deep_sigmoidal_transform_kernels>;
using BernsteinMap = ElementMap<BSL_ISA::bernstein_transform_kernels>;

}  // namespace
}  // namespace bsl
