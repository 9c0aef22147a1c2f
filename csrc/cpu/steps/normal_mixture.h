// The log density of a mixture of normal distributions of vectors with independent features.
#pragma once

#include <algorithm>

#include "core/distributions/normal_log_prob.h"
#include "core/math.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// inputs: z [n], logits [K], then locations and log scales [K, n].
// options: K.
struct NormalMixture {
  static const char* fault(const Step& step, const Program&) {
    if (!step.outputs.empty()) return "outputs";
    if (step.options.size() != 1 || step.options[0] < 1) return "options";
    const size_t k = static_cast<size_t>(step.options[0]);
    const size_t n = step.inputs.size() < k ? 0 : (step.inputs.size() - k) / (1 + 2 * k);
    return n > 0 && step.inputs.size() == k + n * (1 + 2 * k) ? nullptr : "inputs";
  }

  static int64_t scratch(const Step& step) { return int64_t{step.options[0]} * kTileRows; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    T given[kTileRows], log[kTileRows];
    set_weights(step, t, given, log);
    for (int r = 0; r < kTileRows; ++r) t.log[r] += static_cast<double>(log[r] - given[r]);
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    T given[kTileRows], log[kTileRows];
    set_weights(step, t, given, log);
    const Numbers<T> none{};
    for (int k = 0; k < components(step); ++k) {
      const T* logit = t.lane(logit_of(step, k));
      const T* own = joint(t, k);
      T* grad_logit = t.grad(logit_of(step, k));
      T share[kTileRows];  // the gradient of the component's log density
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const T weight = math::exp(own[r] - log[r]), prior = math::exp(logit[r] - given[r]);
        share[r] = t.grad_log[r] == T(0) ? T(0) : t.grad_log[r] * weight;
        grad_logit[r] += share[r] - t.grad_log[r] * prior;
      }
      for (int i = 0; i < size(step); ++i) {
        const int32_t lanes[3] = {step.inputs[i], loc_of(step, k, i), scale_of(step, k, i)};
        T by[3][kTileRows];
        pull_back(none, share, t.lane(lanes[0]), t.lane(lanes[1]), t.lane(lanes[2]), by);
        for (int j = 0; j < 3; ++j) {
          T* grad = t.grad(lanes[j]);
          for (int r = 0; r < kTileRows; ++r) grad[r] += by[j][r];
        }
      }
    }
  }

 private:
  using Density = normal::LogProb<Parametrization::log_scale>;

  static int components(const Step& step) { return step.options[0]; }
  static int size(const Step& step) {
    const int k = components(step);
    return (static_cast<int>(step.inputs.size()) - k) / (1 + 2 * k);
  }
  static int32_t logit_of(const Step& step, int k) { return step.inputs[size(step) + k]; }
  static int32_t loc_of(const Step& step, int k, int i) {
    const int n = size(step);
    return step.inputs[n + components(step) + k * n + i];
  }
  static int32_t scale_of(const Step& step, int k, int i) {
    return loc_of(step, components(step) + k, i);
  }
  // The logarithm of a component's weight and density, in scratch.
  template <typename T>
  static T* joint(const TileOf<T>& t, int k) {
    return t.scratch + int64_t{k} * kTileRows;
  }

  // Sets the joint logarithms, and the logarithms of the sums of the weights and of what they are
  // made of.
  template <typename T>
  static void set_weights(const Step& step, const TileOf<T>& t, T* given, T* log) {
    const Numbers<T> none{};
    const int count = components(step);
    for (int k = 0; k < count; ++k) {
      double total[kTileRows] = {};
      for (int i = 0; i < size(step); ++i) {
        T logs[kTileRows];
        density(none, t.lane(step.inputs[i]), t.lane(loc_of(step, k, i)),
                t.lane(scale_of(step, k, i)), logs);
        for (int r = 0; r < kTileRows; ++r) total[r] += static_cast<double>(logs[r]);
      }
      const T* logit = t.lane(logit_of(step, k));
      T* own = joint(t, k);
      for (int r = 0; r < kTileRows; ++r) own[r] = logit[r] + static_cast<T>(total[r]);
    }
    log_sum(count, [&](int k) { return t.lane(logit_of(step, k)); }, given);
    log_sum(count, [&](int k) { return joint(t, k); }, log);
  }

  template <typename T>
  static void density(const Numbers<T>& none, const T* z, const T* loc, const T* raw, T* logs) {
#pragma GCC ivdep
    for (int r = 0; r < kTileRows; ++r) logs[r] = Density::forward(none, z[r], loc[r], raw[r]).log;
  }

  template <typename T>
  static void pull_back(const Numbers<T>& none, const T* grad, const T* z, const T* loc,
                        const T* raw, T (*by)[kTileRows]) {
#pragma GCC ivdep
    for (int r = 0; r < kTileRows; ++r) {
      const Gradients<T, 3> g =
          Density::backward(none, Result<T>{T(0), grad[r]}, z[r], loc[r], raw[r]);
      for (int j = 0; j < 3; ++j) by[j][r] = g.of[j];
    }
  }

  // log of the sum of exp(lane(k)).
  template <typename T, typename Lane>
  static void log_sum(int count, const Lane& lane, T* log) {
    T most[kTileRows], sum[kTileRows] = {};
    std::copy_n(lane(0), kTileRows, most);
    for (int k = 1; k < count; ++k) {
      const T* own = lane(k);
      for (int r = 0; r < kTileRows; ++r) most[r] = own[r] > most[r] ? own[r] : most[r];
    }
    // Where all are -infinity, so is the result.
    for (int r = 0; r < kTileRows; ++r) {
      most[r] = most[r] == -math::Real<T>::infinity ? T(0) : most[r];
    }
    for (int k = 0; k < count; ++k) {
      const T* own = lane(k);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) sum[r] += math::exp(own[r] - most[r]);
    }
#pragma GCC ivdep
    for (int r = 0; r < kTileRows; ++r) log[r] = most[r] + math::log(sum[r]);
  }
};

}  // namespace
}  // namespace bsl
