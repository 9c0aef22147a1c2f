// Loops of the ops with rows of parameters for each element. An op is a class Tile<T>, which works
// on kRows elements, made of the call, with
//
//   static constexpr int kOperands;  // how many rows
//   void load(const T* x, const T* const* const* rows, int first);  // rows[operand][first + t]
//   void map(T* y, T* log);
//   void gradients(const T* by_y, const T* by_log, T* by_x);
//   void store(int n, T* const* grads) const;  // of the rows of the first n elements
//
// Those on mixtures have MixtureTile<T> for all but map and gradients, which leave by_logit_,
// by_loc_ and by_scale_.
//
// Rows of parameters are transposed to [component][element]: SIMD lanes run over elements.
#pragma once

#include "core/pointwise.h"
#include "cpu/block.h"
#include "cpu/mixture.h"
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

template <typename T>
using Rows = T[kMaxComponents * kRows];

template <typename T>
class MixtureTile {
 public:
  static constexpr int kOperands = 3;

  explicit MixtureTile(const MixtureCall& call) : n_(call.components) {
    for (int i = 0; i < kMaxNumbers; ++i) numbers_.at[i] = static_cast<T>(call.numbers[i]);
  }

  void load(const T* x, const T* const* const* rows, int first) {
    for (int t = 0; t < kRows; ++t) x_[t] = x[t];
    load_rows(rows[0] + first, n_, logit_);
    load_rows(rows[1] + first, n_, loc_);
    load_rows(rows[2] + first, n_, log_scale_);
    // A common factor of the weights means nothing; without it all logarithms are small.
    alignas(64) T max[kRows];
    tile_max(logit_, n_, max);
    for (int k = 0; k < n_; ++k) {
      for (int t = 0; t < kRows; ++t) logit_[k * kRows + t] -= max[t];
    }
  }

  void store(int n, T* const* grads) const {
    if (grads[0] != nullptr) transpose_back(by_logit_, n, n_, grads[0]);
    if (grads[1] != nullptr) transpose_back(by_loc_, n, n_, grads[1]);
    if (grads[2] != nullptr) transpose_back(by_scale_, n, n_, grads[2]);
  }

 protected:
  // Logarithms become weights exp(l - max), which are summed; the logarithm of that sum.
  void weigh(Rows<T>& logs, T* max, T* sums, T* log_sums) const {
    tile_max(logs, n_, max);
    for (int t = 0; t < kRows; ++t) max[t] = max[t] < kLowest<T> ? kLowest<T> : max[t];
    tile_weights(logs, n_, max, sums);
    for (int t = 0; t < kRows; ++t) log_sums[t] = math::log(sums[t]);
  }

  // The least distance(i) of the components of row t that are not left out.
  template <typename F>
  T least_distance(int t, const F& distance) const {
    T least = math::Real<T>::infinity;
    for (int i = t; i < n_ * kRows; i += kRows) {
      const T own = compared(logit_[i], distance(i));
      least = own < least ? own : least;
    }
    return least;
  }

  // Where no component has a weight, the nearest get theirs among themselves.
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
  alignas(64) Rows<T> logit_, loc_, log_scale_;
  alignas(64) Rows<T> by_logit_, by_loc_, by_scale_;
};

template <typename T>
struct MixtureReaders {
  explicit MixtureReaders(const MixtureCall& a)
      : x(a.x, a.shape), rows{{a.logits, a.shape}, {a.loc, a.shape}, {a.log_scale, a.shape}} {}

  Reader<T> x;
  RowReader<T> rows[3];
};

// Calls f(first) for each tile of a block, loaded; `first` counts within the block.
template <typename T, typename Tile, typename F>
void for_each_tile(MixtureReaders<T>& readers, Tile& tile, int64_t start, int length, const F& f) {
  const T* x = readers.x.block(start, length);
  const T* const* rows[3] = {};
  for (int i = 0; i < Tile::kOperands; ++i) rows[i] = readers.rows[i].block(start, length);
  for (int i = 0; i < length; i += kRows) {
    tile.load(x + i, rows, i);
    f(i);
  }
}

template <typename T, template <typename> class Tile>
void mixture_forward(const MixtureForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    MixtureReaders<T> readers(a);
    Writer<T> y(a.y);
    Reducer<T> log(a.plan, a.reduction, chunk, a.log, a.partials);
    Tile<T> tile(a);
    alignas(64) T values[kBlock] = {}, logs[kBlock];
    for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
      for_each_tile(readers, tile, start, length, [&](int i) { tile.map(values + i, logs + i); });
      y.store(values, start, length);
      log.add(logs, start, length);
    });
  });
  combine_partials<T>(a.plan, a.partials, a.log);
}

template <typename T, template <typename> class Tile>
void mixture_backward(const MixtureBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    MixtureReaders<T> readers(a);
    Reader<T> grad_y(a.grad_y, a.shape), grad_log(a.grad_log, a.shape);
    Writer<T> grad_x(a.grad_x);
    Tile<T> tile(a);
    alignas(64) T by_x[kBlock] = {};
    for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
      const T* by_y = grad_y.block(start, length);
      const T* by_log = grad_log.block(start, length);
      for_each_tile(readers, tile, start, length, [&](int i) {
        const int rows = length - i < kRows ? length - i : kRows;
        const int64_t first = (start + i) * a.components;
        const auto at = [&](void* grad) {
          return grad == nullptr ? nullptr : static_cast<T*>(grad) + first;
        };
        tile.gradients(by_y + i, by_log + i, by_x + i);
        T* const grads[3] = {at(a.grad_logits), at(a.grad_loc), at(a.grad_log_scale)};
        tile.store(rows, grads);
      });
      grad_x.store(by_x, start, length);
    });
  });
}

template <template <typename> class Tile>
constexpr MixtureKernels mixture_kernels() {
  return {mixture_forward<float, Tile>, mixture_forward<double, Tile>,
          mixture_backward<float, Tile>, mixture_backward<double, Tile>};
}

}  // namespace
}  // namespace bsl
