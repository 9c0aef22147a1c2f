#include "core/distributions/iwae_bound.h"

#include "cuda/softmax.h"
#include "cuda/team.h"

namespace bsl {
namespace {

template <typename T>
__device__ T log_of(int64_t samples) {
  return static_cast<T>(math::log(static_cast<double>(samples)));
}

// Samples next to each other: rows.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    bounds_of_rows_kernel(const __grid_constant__ IwaeBoundForward a, int size) {
  const T* data = static_cast<const T*>(a.log_weights);
  const Team team(size);
  for_each_row(a.outer, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.samples);
    const T max = iwae_bound::finite_or_zero(span.max(data));
    const T sum = span.weights(data, max);
    if (team.rank == 0) {
      static_cast<T*>(a.bound)[row] = iwae_bound::bound(max, sum, log_of<T>(a.samples));
    }
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gradients_of_rows_kernel(const __grid_constant__ IwaeBoundBackward a, int size) {
  const T* data = static_cast<const T*>(a.log_weights);
  const Team team(size);
  for_each_row(a.outer, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.samples);
    const T max = iwae_bound::finite_or_zero(span.max(data));
    const T sum = span.weights(data, max);
    const T grad = static_cast<const T*>(a.grad)[row];
    span.map(data, static_cast<T*>(a.grad_log_weights), [&](T x, int64_t) {
      return iwae_bound::gradient(grad, weight(x, max), sum, a.squared);
    });
  });
}

// Samples in front: columns. A thread's part of a column of [outer, samples, inner], and what the
// column comes to.
template <typename T>
struct Column {
  // Call for every column of a tile; threads beyond the last one work on that one again.
  template <typename Call>
  __device__ Column(const Call& a, int64_t tile) : samples(a.samples), inner(a.inner) {
    const int64_t tiles = (inner + kColumns - 1) / kColumns;
    const int64_t i = tile % tiles * kColumns + threadIdx.x % kColumns;
    is_real = i < inner;
    result = tile / tiles * inner + least(i, inner - 1);
    start = tile / tiles * samples * inner + least(i, inner - 1);
    const T* data = static_cast<const T*>(a.log_weights) + start;
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
  return a.outer * ((a.inner + kColumns - 1) / kColumns);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    bounds_of_columns_kernel(const __grid_constant__ IwaeBoundForward a, int64_t n) {
  for (int64_t tile = blockIdx.x; tile < n; tile += gridDim.x) {
    const Column<T> column(a, tile);
    if (column.is_real && threadIdx.x < kColumns) {
      static_cast<T*>(a.bound)[column.result] =
          iwae_bound::bound(column.max, column.sum, log_of<T>(a.samples));
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gradients_of_columns_kernel(const __grid_constant__ IwaeBoundBackward a, int64_t n) {
  for (int64_t tile = blockIdx.x; tile < n; tile += gridDim.x) {
    const Column<T> column(a, tile);
    if (!column.is_real) continue;
    const T* data = static_cast<const T*>(a.log_weights) + column.start;
    T* out = static_cast<T*>(a.grad_log_weights) + column.start;
    const T grad = static_cast<const T*>(a.grad)[column.result];
    column.for_each_sample([&](int64_t at) {
      out[at] = iwae_bound::gradient(grad, weight(data[at], column.max), column.sum, a.squared);
    });
  }
}

template <typename T>
void forward(const IwaeBoundForward& a, cudaStream_t stream) {
  if (a.inner == 1) {
    const int team = team_size(a.samples);
    bounds_of_rows_kernel<T><<<team_blocks(a.outer, team), kThreads, 0, stream>>>(a, team);
  } else {
    bounds_of_columns_kernel<T><<<blocks(tiles(a) * kThreads), kThreads, 0, stream>>>(a, tiles(a));
  }
}

template <typename T>
void backward(const IwaeBoundBackward& a, cudaStream_t stream) {
  if (a.inner == 1) {
    const int team = team_size(a.samples);
    gradients_of_rows_kernel<T><<<team_blocks(a.outer, team), kThreads, 0, stream>>>(a, team);
  } else {
    gradients_of_columns_kernel<T>
        <<<blocks(tiles(a) * kThreads), kThreads, 0, stream>>>(a, tiles(a));
  }
}

}  // namespace

namespace BSL_ISA {
extern const KernelsOf<IwaeBoundForward, IwaeBoundBackward> iwae_bound_kernels = {
    forward<float>, forward<double>, backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
