#include "cpu/iwae_bound.h"

#include "core/distributions/iwae_bound.h"
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

// Lanes where samples are not the last dimension.
constexpr int kLanes = 64;

template <typename T>
T log_of(int64_t samples) {
  return static_cast<T>(math::log(static_cast<double>(samples)));
}

// Samples next to each other: rows.
template <typename T>
void forward_rows(const IwaeBoundForward& a, const ChunkPlan& plan, int64_t chunk) {
  const T log_samples = log_of<T>(a.samples);
  const int columns = static_cast<int>(a.samples);
  T* bound = static_cast<T*>(a.bound);
  alignas(64) T tile[kNarrow * kRows], max[kBlock], sums[kBlock];
  for_each_block(plan.begin(chunk), plan.end(chunk), [&](int64_t start, int length) {
    const T* first = static_cast<const T*>(a.log_weights) + start * a.samples;
    for (int i = length; i < kBlock; ++i) max[i] = sums[i] = T(1);
    for (int i = 0; i < length; i += a.samples <= kNarrow ? kRows : 1) {
      const T* rows = first + i * a.samples;
      if (a.samples <= kNarrow) {
        transpose(rows, length - i < kRows ? length - i : kRows, columns, tile);
        tile_max(tile, columns, max + i);
        for (int r = i; r < i + kRows; ++r) max[r] = iwae_bound::finite_or_zero(max[r]);
        tile_weights(tile, columns, max + i, sums + i);
      } else {
        max[i] = iwae_bound::finite_or_zero(row_max(rows, a.samples));
        sums[i] = row_weights<T>(rows, a.samples, max[i], nullptr);
      }
    }
    for (int i = 0; i < kBlock; ++i) max[i] = iwae_bound::bound(max[i], sums[i], log_samples);
    for (int i = 0; i < length; ++i) bound[start + i] = max[i];
  });
}

template <typename T>
void backward_rows(const IwaeBoundBackward& a, const ChunkPlan& plan, int64_t chunk) {
  const int columns = static_cast<int>(a.samples);
  const T* grad = static_cast<const T*>(a.grad);
  alignas(64) T tile[kNarrow * kRows], max[kRows], sums[kRows], grads[kRows];
  for_each_block(plan.begin(chunk), plan.end(chunk), [&](int64_t start, int length) {
    for (int i = 0; i < length; i += a.samples <= kNarrow ? kRows : 1) {
      const T* in = static_cast<const T*>(a.log_weights) + (start + i) * a.samples;
      T* out = static_cast<T*>(a.grad_log_weights) + (start + i) * a.samples;
      if (a.samples <= kNarrow) {
        const int rows = length - i < kRows ? length - i : kRows;
        transpose(in, rows, columns, tile);
        tile_max(tile, columns, max);
        for (int r = 0; r < kRows; ++r) max[r] = iwae_bound::finite_or_zero(max[r]);
        for (int r = 0; r < kRows; ++r) grads[r] = grad[start + i + (r < rows ? r : 0)];
        tile_weights(tile, columns, max, sums);
        for (int c = 0; c < columns; ++c) {
          T* row = tile + c * kRows;
          for (int r = 0; r < kRows; ++r) {
            row[r] = iwae_bound::gradient(grads[r], row[r], sums[r], a.squared);
          }
        }
        transpose_back(tile, rows, columns, out);
      } else {
        const T most = iwae_bound::finite_or_zero(row_max(in, a.samples));
        const T sum = row_weights(in, a.samples, most, out);
        for (int64_t k = 0; k < a.samples; ++k) {
          out[k] = iwae_bound::gradient(grad[start + i], out[k], sum, a.squared);
        }
      }
    }
  });
}

// Samples in front: columns, of which kLanes are worked on together. What they come to, and for the
// samples in turn where their log weights are.
template <typename T>
class Columns {
 public:
  Columns(const void* data, int64_t samples, int64_t inner, int64_t tile)
      : samples_(samples), inner_(inner) {
    const int64_t tiles = (inner + kLanes - 1) / kLanes;
    outer = tile / tiles;
    start = tile % tiles * kLanes;
    length = inner - start < kLanes ? static_cast<int>(inner - start) : kLanes;
    data_ = static_cast<const T*>(data) + outer * samples * inner + start;
    for (int i = 0; i < kLanes; ++i) shift[i] = sums[i] = T(0);
    for (int64_t k = 0; k < samples_; k += kTogether) {
      add(k, samples_ - k < kTogether ? samples_ : k + kTogether);
    }
  }

  // The log weights of a sample, kLanes of them.
  const T* row(int64_t k) {
    const T* x = data_ + k * inner_;
    if (length == kLanes) return x;
    for (int i = 0; i < kLanes; ++i) buffer_[i] = x[i < length ? i : 0];
    return buffer_;
  }

  int64_t outer, start;
  int length;
  // What was subtracted, and the weights' sums after that.
  alignas(64) T shift[kLanes], sums[kLanes];

 private:
  // Samples `begin` to `end`, which stay in the cache while they are read twice: all of them would
  // not, as far apart as they are. Sums so far are brought to the new largest log weight.
  void add(int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const T* x = row(k);
      for (int i = 0; i < kLanes; ++i) max_[i] = k == 0 ? x[i] : larger(x[i], max_[i]);
    }
    for (int i = 0; i < kLanes; ++i) {
      const T next = iwae_bound::finite_or_zero(max_[i]);
      const T moved = sums[i] * math::exp(shift[i] - next);
      sums[i] = sums[i] == T(0) ? T(0) : moved;
      shift[i] = next;
    }
    for (int64_t k = begin; k < end; ++k) {
      const T* x = row(k);
      for (int i = 0; i < kLanes; ++i) sums[i] += weight(x[i], shift[i]);
    }
  }

  static constexpr int kTogether = 8;
  alignas(64) T max_[kLanes];
  alignas(64) T buffer_[kLanes];
  const int64_t samples_, inner_;
  const T* data_;
};

template <typename T>
void forward_columns(const IwaeBoundForward& a, int64_t tile) {
  Columns<T> columns(a.log_weights, a.samples, a.inner, tile);
  const T log_samples = log_of<T>(a.samples);
  alignas(64) T bound[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    bound[i] = iwae_bound::bound(columns.shift[i], columns.sums[i], log_samples);
  }
  T* out = static_cast<T*>(a.bound) + columns.outer * a.inner + columns.start;
  for (int i = 0; i < columns.length; ++i) out[i] = bound[i];
}

template <typename T>
void backward_columns(const IwaeBoundBackward& a, int64_t tile) {
  Columns<T> columns(a.log_weights, a.samples, a.inner, tile);
  const T* grad = static_cast<const T*>(a.grad) + columns.outer * a.inner + columns.start;
  alignas(64) T grads[kLanes], found[kLanes];
  for (int i = 0; i < kLanes; ++i) grads[i] = grad[i < columns.length ? i : 0];
  for (int64_t k = 0; k < a.samples; ++k) {
    const T* x = columns.row(k);
    for (int i = 0; i < kLanes; ++i) found[i] = weight(x[i], columns.shift[i]);
    for (int i = 0; i < kLanes; ++i) {
      found[i] = iwae_bound::gradient(grads[i], found[i], columns.sums[i], a.squared);
    }
    T* out = static_cast<T*>(a.grad_log_weights) + (columns.outer * a.samples + k) * a.inner +
             columns.start;
    for (int i = 0; i < columns.length; ++i) out[i] = found[i];
  }
}

// by_rows(plan, chunk) for each chunk of rows, or by_columns(tile) for each tile of columns.
template <typename A, typename ByRows, typename ByColumns>
void for_each_part(const A& a, const ByRows& by_rows, const ByColumns& by_columns) {
  if (a.inner == 1) {
    const ChunkPlan plan = plan_rows(a.outer, a.samples, Reduction::none);
    parallel_chunks(plan.n_chunks, [&](int64_t chunk) { by_rows(plan, chunk); });
    return;
  }
  const int64_t tiles = a.outer * ((a.inner + kLanes - 1) / kLanes);
  const int64_t together = kChunk / (a.samples * kLanes) + 1;
  parallel_chunks((tiles + together - 1) / together, [&](int64_t chunk) {
    for (int64_t i = chunk * together; i < (chunk + 1) * together && i < tiles; ++i) by_columns(i);
  });
}

template <typename T>
void forward(const IwaeBoundForward& a) {
  for_each_part(
      a, [&](const ChunkPlan& plan, int64_t chunk) { forward_rows<T>(a, plan, chunk); },
      [&](int64_t tile) { forward_columns<T>(a, tile); });
}

template <typename T>
void backward(const IwaeBoundBackward& a) {
  for_each_part(
      a, [&](const ChunkPlan& plan, int64_t chunk) { backward_rows<T>(a, plan, chunk); },
      [&](int64_t tile) { backward_columns<T>(a, tile); });
}

}  // namespace

namespace BSL_ISA {
extern const IwaeBoundKernels iwae_bound_kernels = {forward<float>, forward<double>,
                                                    backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
