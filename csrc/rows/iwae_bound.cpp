// Bounds for each row of logarithms of weights. The gradient of one is `grad` times its normalised
// weight. `option` asks for the square of that weight.
#include "core/distributions/iwae_bound.h"

#include "softmax_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

// How often the rows' inner dimension is repeated.
template <typename Call>
int64_t outer_of(const Call& a) {
  return a.shape.numel / a.inner;
}

template <typename T>
BSL_HD T log_of(int64_t samples) {
  return static_cast<T>(math::log(static_cast<double>(samples)));
}

#ifdef __CUDACC__

// Samples next to each other: rows.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    bounds_of_rows_kernel(const __grid_constant__ SoftmaxForward a, int size) {
  const T* data = static_cast<const T*>(a.x);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.columns);
    const T max = iwae_bound::finite_or_zero(span.max(data));
    const T sum = span.weights(data, max);
    if (team.rank == 0) {
      static_cast<T*>(a.result)[row] = iwae_bound::bound(max, sum, log_of<T>(a.columns));
    }
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gradients_of_rows_kernel(const __grid_constant__ SoftmaxBackward a, int size) {
  const T* data = static_cast<const T*>(a.x);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.columns);
    const T max = iwae_bound::finite_or_zero(span.max(data));
    const T sum = span.weights(data, max);
    const T grad = static_cast<const T*>(a.grad.data)[row];
    span.map(data, static_cast<T*>(a.grad_x), [&](T x, int64_t) {
      return iwae_bound::gradient(grad, weight(x, max), sum, a.option);
    });
  });
}

// Samples in front: columns. A thread's part of a column of [outer, samples, inner], and what the
// column comes to.
template <typename T>
struct Column {
  // Call for every column of a tile; threads beyond the last one work on that one again.
  template <typename Call>
  __device__ Column(const Call& a, int64_t tile) : samples(a.columns), inner(a.inner) {
    const int64_t tiles = (inner + kColumns - 1) / kColumns;
    const int64_t i = tile % tiles * kColumns + threadIdx.x % kColumns;
    is_real = i < inner;
    result = tile / tiles * inner + least(i, inner - 1);
    start = tile / tiles * samples * inner + least(i, inner - 1);
    const T* data = static_cast<const T*>(a.x) + start;
    T most = -math::Real<T>::infinity;
    for_each_sample([&](int64_t at) { most = larger(data[at], most); });
    most = combined_parts(most, [](T x, T y) { return larger(x, y); });
    max = iwae_bound::finite_or_zero(most);
    double total = 0;
    for_each_sample([&](int64_t at) { total += static_cast<double>(weight(data[at], max)); });
    sum = static_cast<T>(combined_parts(total, [](double x, double y) { return x + y; }));
  }

  template <typename F>
  __device__ void for_each_sample(const F& f) const {
    for (int64_t k = threadIdx.x / kColumns; k < samples; k += kParts) f(k * inner);
  }

  int64_t samples, inner;
  int64_t start, result;  // where its first sample and its bound lie
  bool is_real;
  T max, sum;
};

template <typename A>
int64_t tiles(const A& a) {
  return outer_of(a) * ((a.inner + kColumns - 1) / kColumns);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    bounds_of_columns_kernel(const __grid_constant__ SoftmaxForward a, int64_t n) {
  for (int64_t tile = blockIdx.x; tile < n; tile += gridDim.x) {
    const Column<T> column(a, tile);
    if (column.is_real && threadIdx.x < kColumns) {
      static_cast<T*>(a.result)[column.result] =
          iwae_bound::bound(column.max, column.sum, log_of<T>(a.columns));
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gradients_of_columns_kernel(const __grid_constant__ SoftmaxBackward a, int64_t n) {
  for (int64_t tile = blockIdx.x; tile < n; tile += gridDim.x) {
    const Column<T> column(a, tile);
    if (!column.is_real) continue;
    const T* data = static_cast<const T*>(a.x) + column.start;
    T* out = static_cast<T*>(a.grad_x) + column.start;
    const T grad = static_cast<const T*>(a.grad.data)[column.result];
    column.for_each_sample([&](int64_t at) {
      out[at] = iwae_bound::gradient(grad, weight(data[at], column.max), column.sum, a.option);
    });
  }
}

template <typename T>
void forward(const SoftmaxForward& a, cudaStream_t stream) {
  if (a.inner == 1) {
    const int team = team_size(a.columns);
    bounds_of_rows_kernel<T><<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
  } else {
    bounds_of_columns_kernel<T><<<blocks(tiles(a) * kThreads), kThreads, 0, stream>>>(a, tiles(a));
  }
}

template <typename T>
void backward(const SoftmaxBackward& a, cudaStream_t stream) {
  if (a.inner == 1) {
    const int team = team_size(a.columns);
    gradients_of_rows_kernel<T><<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
  } else {
    gradients_of_columns_kernel<T>
        <<<blocks(tiles(a) * kThreads), kThreads, 0, stream>>>(a, tiles(a));
  }
}

#else

// Lanes where samples are not the last dimension.
constexpr int kLanes = 64;

// Samples next to each other: rows.
template <typename T>
void forward_rows(const SoftmaxForward& a, int64_t chunk) {
  const T log_samples = log_of<T>(a.columns);
  const int columns = static_cast<int>(a.columns);
  T* bound = static_cast<T*>(a.result);
  alignas(64) T tile[kNarrow * kRows], max[kBlock], sums[kBlock];
  for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk),
                 [&](int64_t start, int length) {
                   const T* first = static_cast<const T*>(a.x) + start * a.columns;
                   for (int i = length; i < kBlock; ++i) max[i] = sums[i] = T(1);
                   for (int i = 0; i < length; i += a.columns <= kNarrow ? kRows : 1) {
                     const T* rows = first + i * a.columns;
                     if (a.columns <= kNarrow) {
                       transpose(rows, length - i < kRows ? length - i : kRows, columns, tile);
                       tile_max(tile, columns, max + i);
                       for (int r = i; r < i + kRows; ++r)
                         max[r] = iwae_bound::finite_or_zero(max[r]);
                       tile_weights(tile, columns, max + i, sums + i);
                     } else {
                       max[i] = iwae_bound::finite_or_zero(row_max(rows, a.columns));
                       sums[i] = row_weights<T>(rows, a.columns, max[i], nullptr);
                     }
                   }
                   for (int i = 0; i < kBlock; ++i)
                     max[i] = iwae_bound::bound(max[i], sums[i], log_samples);
                   for (int i = 0; i < length; ++i) bound[start + i] = max[i];
                 });
}

template <typename T>
void backward_rows(const SoftmaxBackward& a, int64_t chunk) {
  const int columns = static_cast<int>(a.columns);
  const T* grad = static_cast<const T*>(a.grad.data);
  alignas(64) T tile[kNarrow * kRows], max[kRows], sums[kRows], grads[kRows];
  for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk),
                 [&](int64_t start, int length) {
                   for (int i = 0; i < length; i += a.columns <= kNarrow ? kRows : 1) {
                     const T* in = static_cast<const T*>(a.x) + (start + i) * a.columns;
                     T* out = static_cast<T*>(a.grad_x) + (start + i) * a.columns;
                     if (a.columns <= kNarrow) {
                       const int rows = length - i < kRows ? length - i : kRows;
                       transpose(in, rows, columns, tile);
                       tile_max(tile, columns, max);
                       for (int r = 0; r < kRows; ++r) max[r] = iwae_bound::finite_or_zero(max[r]);
                       for (int r = 0; r < kRows; ++r)
                         grads[r] = grad[start + i + (r < rows ? r : 0)];
                       tile_weights(tile, columns, max, sums);
                       for (int c = 0; c < columns; ++c) {
                         T* row = tile + c * kRows;
                         for (int r = 0; r < kRows; ++r) {
                           row[r] = iwae_bound::gradient(grads[r], row[r], sums[r], a.option);
                         }
                       }
                       transpose_back(tile, rows, columns, out);
                     } else {
                       const T most = iwae_bound::finite_or_zero(row_max(in, a.columns));
                       const T sum = row_weights(in, a.columns, most, out);
                       for (int64_t k = 0; k < a.columns; ++k) {
                         out[k] = iwae_bound::gradient(grad[start + i], out[k], sum, a.option);
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
void forward_columns(const SoftmaxForward& a, int64_t tile) {
  Columns<T> columns(a.x, a.columns, a.inner, tile);
  const T log_samples = log_of<T>(a.columns);
  alignas(64) T bound[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    bound[i] = iwae_bound::bound(columns.shift[i], columns.sums[i], log_samples);
  }
  T* out = static_cast<T*>(a.result) + columns.outer * a.inner + columns.start;
  for (int i = 0; i < columns.length; ++i) out[i] = bound[i];
}

template <typename T>
void backward_columns(const SoftmaxBackward& a, int64_t tile) {
  Columns<T> columns(a.x, a.columns, a.inner, tile);
  const T* grad = static_cast<const T*>(a.grad.data) + columns.outer * a.inner + columns.start;
  alignas(64) T grads[kLanes], found[kLanes];
  for (int i = 0; i < kLanes; ++i) grads[i] = grad[i < columns.length ? i : 0];
  for (int64_t k = 0; k < a.columns; ++k) {
    const T* x = columns.row(k);
    for (int i = 0; i < kLanes; ++i) found[i] = weight(x[i], columns.shift[i]);
    for (int i = 0; i < kLanes; ++i) {
      found[i] = iwae_bound::gradient(grads[i], found[i], columns.sums[i], a.option);
    }
    T* out = static_cast<T*>(a.grad_x) + (columns.outer * a.columns + k) * a.inner + columns.start;
    for (int i = 0; i < columns.length; ++i) out[i] = found[i];
  }
}

// by_rows(chunk) for each chunk of rows, or by_columns(tile) for each tile of columns.
template <typename A, typename ByRows, typename ByColumns>
void for_each_part(const A& a, const ByRows& by_rows, const ByColumns& by_columns) {
  if (a.inner == 1) {
    parallel_chunks(a.shape.plan.n_chunks, by_rows);
    return;
  }
  const int64_t tiles = outer_of(a) * ((a.inner + kLanes - 1) / kLanes);
  const int64_t together = kChunk / (a.columns * kLanes) + 1;
  parallel_chunks((tiles + together - 1) / together, [&](int64_t chunk) {
    for (int64_t i = chunk * together; i < (chunk + 1) * together && i < tiles; ++i) by_columns(i);
  });
}

template <typename T>
void forward(const SoftmaxForward& a) {
  for_each_part(
      a, [&](int64_t chunk) { forward_rows<T>(a, chunk); },
      [&](int64_t tile) { forward_columns<T>(a, tile); });
}

template <typename T>
void backward(const SoftmaxBackward& a) {
  for_each_part(
      a, [&](int64_t chunk) { backward_rows<T>(a, chunk); },
      [&](int64_t tile) { backward_columns<T>(a, tile); });
}

#endif

}  // namespace

namespace BSL_ISA {
extern const SoftmaxKernels iwae_bound_kernels = {forward<float>, forward<double>, backward<float>,
                                                  backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
