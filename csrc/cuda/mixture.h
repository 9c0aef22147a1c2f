// What ops on mixtures share (cuda/element_kernels.h). As in cpu/mixture.h, softmaxes are taken
// twice over: for the largest logarithm, then for the sum of weights. Exponentials are computed
// again where they are wanted again.
#pragma once

#include "core/softmax.h"
#include "cuda/element_kernels.h"

namespace bsl {
namespace {

// The mixture of one element.
template <typename T>
struct Mixture {
  static constexpr int operands = 3;

  int n;
  Numbers<T> numbers;
  T x;
  T *logit, *loc, *log_scale;
  T* scratch[2];

  __device__ Mixture(const ElementCall& a, const BlockRows<T>& rows)
      : n(static_cast<int>(a.widths[1])) {
    rows.load({&a.inputs[1], &a.inputs[2], &a.inputs[3]}, {n, n, n}, a.shape);
    for (int i = 0; i < kMaxNumbers; ++i) numbers.at[i] = static_cast<T>(a.numbers[i]);
    x = element<T>(a.inputs[0], a.shape, rows.index());
    logit = rows.own(0);
    loc = rows.own(1);
    log_scale = rows.own(2);
    for (int i = 0; i < 2; ++i) scratch[i] = rows.own(operands + i);
    centre();
  }

  // The least distance(k) of the components that are not left out.
  template <typename F>
  __device__ T least_distance(const F& distance) const {
    T least = math::Real<T>::infinity;
    for (int k = 0; k < n; ++k) {
      const T own = compared(logit[k], distance(k));
      least = own < least ? own : least;
    }
    return least;
  }

  // Its weight where no component has one: among the nearest.
  __device__ T log_weight(int k, T distance, T least) const {
    return distance <= least ? logit[k] : -math::Real<T>::infinity;
  }

 private:
  // Takes the largest logit off all: a common factor of the weights means nothing, and without it
  // all logarithms are small.
  __device__ void centre() {
    T max = logit[0];
    for (int k = 1; k < n; ++k) max = logit[k] > max ? logit[k] : max;
    for (int k = 0; k < n; ++k) logit[k] -= max;
  }
};

// A softmax over components: found with the largest logarithm, then the sum of exp(l - max).
template <typename T>
struct Softmax {
  T max, sum, log;

  __device__ Softmax() : max(-math::Real<T>::infinity), sum(0) {}

  // NaN is passed over: its weight is NaN.
  __device__ void look_at(T l) { max = l > max ? l : max; }
  __device__ void seen_all() { max = max < kLowest<T> ? kLowest<T> : max; }
  __device__ T weight(T l) const { return math::exp(l - max); }
  __device__ void add(T l) { sum += weight(l); }
  __device__ void added_all() { log = math::log(sum); }
  __device__ T share(T l) const { return weight(l) / sum; }
};

// That of log(k) for each of n components.
template <typename T, typename F>
__device__ Softmax<T> softmax_of(int n, const F& log) {
  Softmax<T> result;
  for (int k = 0; k < n; ++k) result.look_at(log(k));
  result.seen_all();
  for (int k = 0; k < n; ++k) result.add(log(k));
  result.added_all();
  return result;
}

}  // namespace
}  // namespace bsl
