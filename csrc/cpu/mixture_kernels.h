// Loops of the ops on mixtures. An op is a class Tile<T> on top of MixtureTile<T> with
//
//   void map(T* y, T* log);                                  // the results of kRows elements
//   void gradients(const T* by_y, const T* by_log, T* by_x);  // and by_logit_, by_loc_, by_scale_
//
// Rows of parameters are transposed to [component][element]: SIMD lanes run over elements.
#pragma once

#include "core/pointwise.h"
#include "cpu/block.h"
#include "cpu/mixture.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"

namespace bsl {
namespace {

template <typename T>
using Rows = T[kMaxComponents * kRows];

template <typename T>
class MixtureTile {
 public:
  explicit MixtureTile(const MixtureCall& call) : n_(call.components) {
    for (int i = 0; i < kMaxNumbers; ++i) numbers_.at[i] = static_cast<T>(call.numbers[i]);
  }

  void load(const T* x, const T* const* logits, const T* const* loc, const T* const* log_scale) {
    for (int t = 0; t < kRows; ++t) x_[t] = x[t];
    load_rows(logits, logit_);
    load_rows(loc, loc_);
    load_rows(log_scale, log_scale_);
    // A common factor of the weights means nothing; without it all logarithms are small.
    alignas(64) T max[kRows];
    tile_max(logit_, n_, max);
    for (int k = 0; k < n_; ++k) {
      for (int t = 0; t < kRows; ++t) logit_[k * kRows + t] -= max[t];
    }
  }

  // Writes the first `rows` elements' gradients.
  void store(int rows, T* logits, T* loc, T* log_scale) const {
    if (logits != nullptr) transpose_back(by_logit_, rows, n_, logits);
    if (loc != nullptr) transpose_back(by_loc_, rows, n_, loc);
    if (log_scale != nullptr) transpose_back(by_scale_, rows, n_, log_scale);
  }

 protected:
  // Logarithms become weights exp(l - max), which are summed; the logarithm of that sum.
  void weigh(Rows<T>& logs, T* max, T* sums, T* log_sums) const {
    tile_max(logs, n_, max);
    // Nothing at all is exp(-infinity), not NaN.
    for (int t = 0; t < kRows; ++t) max[t] = max[t] < kLowest ? kLowest : max[t];
    tile_weights(logs, n_, max, sums);
    for (int t = 0; t < kRows; ++t) log_sums[t] = math::log(sums[t]);
  }

  static constexpr T kLowest = -T(0.5) / math::Real<T>::min_normal;
  const int n_;
  Numbers<T> numbers_;
  alignas(64) T x_[kRows];
  alignas(64) Rows<T> logit_, loc_, log_scale_;
  alignas(64) Rows<T> by_logit_, by_loc_, by_scale_;

 private:
  void load_rows(const T* const* rows, Rows<T>& out) const {
    for (int t = 0; t < kRows; ++t) {
      const T* row = rows[t];
      for (int k = 0; k < n_; ++k) out[k * kRows + t] = row[k];
    }
  }
};

template <typename T>
struct MixtureReaders {
  explicit MixtureReaders(const MixtureCall& a)
      : x(a.x, a.shape),
        logits(a.logits, a.shape),
        loc(a.loc, a.shape),
        log_scale(a.log_scale, a.shape) {}

  Reader<T> x;
  RowReader<T> logits, loc, log_scale;
};

// Calls f(first) for each tile of a block, loaded; `first` counts within the block.
template <typename T, typename Tile, typename F>
void for_each_tile(MixtureReaders<T>& readers, Tile& tile, int64_t start, int length, const F& f) {
  const T* x = readers.x.block(start, length);
  const T* const* logits = readers.logits.block(start, length);
  const T* const* loc = readers.loc.block(start, length);
  const T* const* log_scale = readers.log_scale.block(start, length);
  for (int i = 0; i < length; i += kRows) {
    tile.load(x + i, logits + i, loc + i, log_scale + i);
    f(i);
  }
}

template <typename T, template <typename> class Tile>
void mixture_forward(const MixtureForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    MixtureReaders<T> readers(a);
    Writer<T> y(a.y);
    Reducer<T> log(a.plan, a.reduction, chunk, a.log, Storage::native, a.partials);
    Tile<T> tile(a);
    alignas(64) T values[kBlock] = {}, logs[kBlock];
    for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
      for_each_tile(readers, tile, start, length, [&](int i) { tile.map(values + i, logs + i); });
      y.store(values, start, length);
      log.add(logs, start, length);
    });
  });
  combine_partials<T>(a.plan, a.partials, a.log, Storage::native);
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
        tile.store(rows, at(a.grad_logits), at(a.grad_loc), at(a.grad_log_scale));
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
