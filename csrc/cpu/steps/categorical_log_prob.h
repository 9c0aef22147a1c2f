// The log probability of a class, given the logits of all of them.
#pragma once

#include "core/distributions/categorical.h"
#include "core/math.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// inputs: the class, a number from 0 on, and the logits.
struct CategoricalLogProb {
  static const char* fault(const Step& step, const Program&) {
    if (!step.outputs.empty()) return "outputs";
    return step.inputs.size() > 1 ? nullptr : "inputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const Rows<T> rows(step, t);
    const T* label = t.lane(step.inputs[0]);
    T chosen[kTileRows] = {};
    for_each_class<T>(step, [&](T index, int32_t lane) {
      const T* logit = t.lane(lane);
      for (int r = 0; r < kTileRows; ++r) chosen[r] = label[r] == index ? logit[r] : chosen[r];
    });
    for (int r = 0; r < kTileRows; ++r) {
      const categorical::Row<T> row{rows.max[r], rows.sum[r]};
      t.log[r] += static_cast<double>(categorical::log_prob(chosen[r], row));
    }
  }

  // By a logit: whether it is that of the class, less its probability.
  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const Rows<T> rows(step, t);
    const T* label = t.lane(step.inputs[0]);
    for_each_class<T>(step, [&](T index, int32_t lane) {
      const T* logit = t.lane(lane);
      T* grad = t.grad(lane);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const T probability = math::exp(logit[r] - rows.max[r]) / rows.sum[r];
        const T is_class = label[r] == index ? T(1) : T(0);
        grad[r] += t.grad_log[r] * (is_class - probability);
      }
    });
  }

 private:
  template <typename T>
  struct Rows {
    T max[kTileRows], sum[kTileRows] = {};

    Rows(const Step& step, const TileOf<T>& t) {
      for (int r = 0; r < kTileRows; ++r) max[r] = -math::Real<T>::infinity;
      for_each_class<T>(step, [&](T, int32_t lane) {
        const T* logit = t.lane(lane);
        // A NaN stays.
        for (int r = 0; r < kTileRows; ++r) max[r] = logit[r] <= max[r] ? max[r] : logit[r];
      });
      for_each_class<T>(step, [&](T, int32_t lane) {
        const T* logit = t.lane(lane);
#pragma GCC ivdep
        for (int r = 0; r < kTileRows; ++r) sum[r] += math::exp(logit[r] - max[r]);
      });
    }
  };

  template <typename T, typename F>
  static void for_each_class(const Step& step, const F& f) {
    for (size_t i = 1; i < step.inputs.size(); ++i) f(static_cast<T>(i - 1), step.inputs[i]);
  }
};

}  // namespace
}  // namespace bsl
