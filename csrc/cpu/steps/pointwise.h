// Steps made of pointwise ops (core/pointwise.h), which have a logarithm and perhaps a value.
#pragma once

#include <utility>

#include "core/pointwise.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// Each op is a variant.
//
// inputs: for each argument of the op, a lane for each element.
// outputs: likewise, of its value.
// options: the variant, counted from kFirst on. numbers: the op's.
template <int kFirst, typename First, typename... Others>
struct PointwiseStepFrom {
  static const char* fault(const Step& step, const Program&) {
    constexpr int variants = 1 + static_cast<int>(sizeof...(Others));
    if (step.options.size() != 1 || step.options[0] < kFirst ||
        step.options[0] >= kFirst + variants) {
      return "options";
    }
    if (step.numbers.size() > kMaxNumbers) return "numbers";
    const size_t n = step.inputs.size() / N;
    const bool fits = step.inputs.size() == N * n && step.outputs.size() == (kHasValue ? n : 0);
    return fits ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    by_variant(step,
               [&](auto op) { forward_by<decltype(op)>(step, t, std::make_index_sequence<N>()); });
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    by_variant(step,
               [&](auto op) { backward_by<decltype(op)>(step, t, std::make_index_sequence<N>()); });
  }

 private:
  static constexpr int N = First::inputs;
  static constexpr bool kHasValue = (First::results & kValue) != 0;
  static_assert((First::results & kLog) != 0, "steps add to the logarithm");

  // Calls f with the op that the step's options say.
  template <typename F>
  static void by_variant(const Step& step, const F& f) {
    int variant = kFirst;
    const auto run = [&](auto op) {
      if (variant++ == step.options[0]) f(op);
    };
    run(First());
    (run(Others()), ...);
  }

  template <typename T>
  static Numbers<T> numbers_of(const Step& step) {
    Numbers<T> numbers{};
    for (size_t i = 0; i < step.numbers.size(); ++i)
      numbers.at[i] = static_cast<T>(step.numbers[i]);
    return numbers;
  }

  template <typename Op, typename T, size_t... K>
  static void forward_by(const Step& step, const TileOf<T>& t, std::index_sequence<K...>) {
    const Numbers<T> numbers = numbers_of<T>(step);
    const size_t n = step.inputs.size() / N;
    for (size_t i = 0; i < n; ++i) {
      T logs[kTileRows], unused[kTileRows];
      T* value = kHasValue ? t.lane(step.outputs[i]) : unused;
      map_lane<Op>(numbers, value, logs, t.lane(step.inputs[K * n + i])...);
      for (int r = 0; r < kTileRows; ++r) t.log[r] += static_cast<double>(logs[r]);
    }
  }

  // A function of pointers alone: that is what compilers vectorise.
  template <typename Op, typename T, typename... X>
  static void map_lane(const Numbers<T>& numbers, T* y, T* logs, const X*... x) {
#pragma GCC ivdep
    for (int r = 0; r < kTileRows; ++r) {
      const Result<T> result = Op::forward(numbers, x[r]...);
      y[r] = result.value;
      logs[r] = result.log;
    }
  }

  template <typename Op, typename T, size_t... K>
  static void backward_by(const Step& step, const TileOf<T>& t, std::index_sequence<K...>) {
    const Numbers<T> numbers = numbers_of<T>(step);
    const size_t n = step.inputs.size() / N;
    const T none[kTileRows] = {};
    for (size_t i = 0; i < n; ++i) {
      T by[N][kTileRows];
      const T* grad_value = kHasValue ? t.grad(step.outputs[i]) : none;
      pull_back<Op>(numbers, grad_value, t.grad_log, by, t.lane(step.inputs[K * n + i])...);
      for (int k = 0; k < N; ++k) {
        T* grad = t.grad(step.inputs[k * n + i]);
        for (int r = 0; r < kTileRows; ++r) grad[r] += by[k][r];
      }
    }
  }

  template <typename Op, typename T, typename... X>
  static void pull_back(const Numbers<T>& numbers, const T* grad_y, const T* grad_log,
                        T (*by)[kTileRows], const X*... x) {
#pragma GCC ivdep
    for (int r = 0; r < kTileRows; ++r) {
      const Gradients<T, N> g = Op::backward(numbers, Result<T>{grad_y[r], grad_log[r]}, x[r]...);
      for (int k = 0; k < N; ++k) by[k][r] = g.of[k];
    }
  }
};

template <typename... Ops>
using PointwiseStep = PointwiseStepFrom<0, Ops...>;

}  // namespace
}  // namespace bsl
