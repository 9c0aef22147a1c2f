// Lanes that are the same in all rows, and stay as they are.
#pragma once

#include <algorithm>

#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// numbers: one for each output.
struct Constant {
  static const char* fault(const Step& step, const Program&) {
    if (!step.inputs.empty()) return "inputs";
    return step.numbers.size() == step.outputs.size() ? nullptr : "numbers";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      std::fill_n(t.lane(step.outputs[i]), kTileRows, static_cast<T>(step.numbers[i]));
    }
  }

  template <typename T>
  static void backward(const Step&, const TileOf<T>&) {}
};

}  // namespace
}  // namespace bsl
