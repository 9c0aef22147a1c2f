// The part that tiles of ops on mixtures share (cpu/element_kernels.h). Such a tile adds map() and
// gradients(). These two leave their results in by_logit_, by_loc_ and by_scale_.
#pragma once

#include "cpu/element_kernels.h"

namespace bsl {
namespace {

template <typename T, bool HasValue = true>
class MixtureTile : public TileOfElements<3, kMaxComponents, HasValue> {
 public:
  explicit MixtureTile(const ElementCall& call) : n_(static_cast<int>(call.widths[1])) {
    for (int i = 0; i < kMaxNumbers; ++i) numbers_.at[i] = static_cast<T>(call.numbers[i]);
  }

  void load(const T* x, const T* const* lanes) {
    for (int t = 0; t < kRows; ++t) x_[t] = x[t];
    loc_ = lanes[1];
    log_scale_ = lanes[2];
    // A common factor of the weights has no effect on results. Without it all logarithms are small.
    alignas(64) T max[kRows];
    tile_max(lanes[0], n_, max);
    for (int k = 0; k < n_; ++k) {
      const T* lane = lanes[0] + k * kRows;
      for (int t = 0; t < kRows; ++t) logit_[k * kRows + t] = lane[t] - max[t];
    }
  }

  const T* gradient(int operand) const {
    return operand == 0 ? by_logit_ : operand == 1 ? by_loc_ : by_scale_;
  }

 protected:
  // Turns logarithms l into weights exp(l - max). Returns the logarithm of their sum.
  void weigh(Rows<T>& logs, T* max, T* sums, T* log_sums) const {
    tile_max(logs, n_, max);
    for (int t = 0; t < kRows; ++t) max[t] = max[t] < kLowest<T> ? kLowest<T> : max[t];
    tile_weights(logs, n_, max, sums);
    for (int t = 0; t < kRows; ++t) log_sums[t] = math::log(sums[t]);
  }

  // The least distance(i) among the components of row t, without those that are left out.
  template <typename F>
  T least_distance(int t, const F& distance) const {
    T least = math::Real<T>::infinity;
    for (int i = t; i < n_ * kRows; i += kRows) {
      const T own = compared(logit_[i], distance(i));
      least = own < least ? own : least;
    }
    return least;
  }

  // If no component has a weight above 0, the nearest ones share it.
  template <typename F>
  void weigh_nearest(Rows<T>& weights, T* sums, const F& distance) const {
    T none = 0;
    for (int t = 0; t < kRows; ++t) none += sums[t] == T(0) ? T(1) : T(0);
    if (!(none > T(0))) return;
    for (int t = 0; t < kRows; ++t) {
      if (sums[t] != T(0)) continue;
      const T least = least_distance(t, distance);
      T most = kLowest<T>;
      for (int i = t; i < n_ * kRows; i += kRows) {
        most = distance(i) <= least ? larger(logit_[i], most) : most;
      }
      for (int i = t; i < n_ * kRows; i += kRows) {
        weights[i] = distance(i) <= least ? weight(logit_[i], most) : T(0);
        sums[t] += weights[i];
      }
    }
  }

  const int n_;
  Numbers<T> numbers_;
  alignas(64) T x_[kRows];
  const T* loc_ = nullptr;
  const T* log_scale_ = nullptr;
  alignas(64) Rows<T> logit_;
  alignas(64) Rows<T> by_logit_, by_loc_, by_scale_;
};

}  // namespace
}  // namespace bsl
