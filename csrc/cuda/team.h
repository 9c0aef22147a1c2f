// Rows whose elements are summed, with a team of threads for each row.
#pragma once

#include "core/softmax.h"
#include "cuda/block.h"

namespace bsl {
namespace {

// A team: 1, 2, 4, ..., 32 neighbouring lanes of a warp, or a whole block.
struct Team {
  int size, rank;

  __device__ explicit Team(int n) : size(n), rank(static_cast<int>(threadIdx.x) % n) {}

  // Combines the values of all threads in an order that depends only on the team's size. All get
  // the result. f is commutative.
  template <typename V, typename F>
  __device__ V combined(V value, const F& f) const {
    value = combined_lanes(value, size < 32 ? size : 32, f);
    if (size <= 32) return value;
    __shared__ V of_warps[kThreads / 32];
    __syncthreads();  // a slower thread may still read the values of the last call
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[0];
    for (int i = 1; i < kThreads / 32; ++i) value = f(value, of_warps[i]);
    return value;
  }

  template <typename T>
  __device__ T max(T value) const {
    return combined(value, [](T a, T b) { return larger(a, b); });
  }
  __device__ double sum(double value) const {
    return combined(value, [](double a, double b) { return a + b; });
  }
};

// The size of a team depends only on the length of its row.
inline int team_size(int64_t columns) {
  constexpr int64_t group = 4, longest_of_a_warp = 2048;
  if (columns > longest_of_a_warp) return kThreads;
  int size = 1;
  while (size < 32 && size * group < columns) size *= 2;
  return size;
}

inline unsigned team_blocks(int64_t rows, int team) { return blocks(rows * team); }

// Sums of columns. The lanes of a warp take neighbouring columns. The warps of a block each add up
// part of the rows.
constexpr int kColumns = 32, kParts = kThreads / kColumns;

// Combines the parts of a column in order. Every thread of the block must call it.
template <typename V, typename F>
__device__ V combined_parts(V value, const F& f) {
  __shared__ V of_all[kThreads];
  __syncthreads();
  of_all[threadIdx.x] = value;
  __syncthreads();
  value = of_all[threadIdx.x % kColumns];
  for (int i = 1; i < kParts; ++i) value = f(value, of_all[i * kColumns + threadIdx.x % kColumns]);
  return value;
}

// Calls f(row) for the rows of this thread's team.
template <typename F>
__device__ __forceinline__ void for_each_row(int64_t rows, const Team& team, const F& f) {
  const Share share(team.size);
#pragma unroll 1
  for (int64_t row = share.first(); row < rows; row += share.step()) f(row);
}

// Calls f(value, index in the group) for the elements of a group's part.
template <typename T, typename F>
__device__ __forceinline__ void for_each(Group<T>& group, Part part, const F& f) {
#pragma unroll
  for (int j = 0; j < kGroup<T>; ++j) {
    if (j >= part.from && j < part.to) f(group.at[j], j);
  }
}

// A row of a contiguous array, worked on by a team.
template <typename T>
struct TeamRow {
  const Team& team;
  int64_t begin, end;

  __device__ TeamRow(const Team& own_team, int64_t row, int64_t columns)
      : team(own_team), begin(row * columns), end(begin + columns) {}

  // f(number, column) for all of a thread's share.
  template <typename F>
  __device__ void visit(const T* data, const F& f) const {
    for_each_part<T>(begin, end, team.rank, team.size, [&](Part part) {
      Group<T> x = read<T, T>(data, part);
      for_each(x, part, [&](T value, int j) { f(value, part.start + j - begin); });
    });
  }

  // The largest number that is not NaN.
  __device__ T max(const T* data) const {
    T most = -math::Real<T>::infinity;
    visit(data, [&](T value, int64_t) { most = larger(value, most); });
    return team.max(most);
  }

  // The sum of the weights exp(x - max).
  __device__ T weights(const T* data, T most) const {
    double total = 0;
    for_each_part<T>(begin, end, team.rank, team.size, [&](Part part) {
      Group<T> x = read<T, T>(data, part);
      T sum = 0;
      for_each(x, part, [&](T value, int) { sum += weight(value, most); });
      total += static_cast<double>(sum);
    });
    return static_cast<T>(team.sum(total));
  }

  // Sets out[i] = f(data[i], column).
  template <typename F>
  __device__ void map(const T* data, T* out, const F& f) const {
    for_each_part<T>(begin, end, team.rank, team.size, [&](Part part) {
      Group<T> x = read<T, T>(data, part);
      for_each(x, part, [&](T& value, int j) { value = f(value, part.start + j - begin); });
      write(x, out, part);
    });
  }
};

}  // namespace
}  // namespace bsl
