// From the functions of a RowMap (core/rows.h) to its kernels, as in cpu/row_kernels.h.
//
// A team of threads for each row: it reads the row for its sums and once more to make it up. What
// is summed over all rows is summed by a second kernel, from the coefficients that the first one
// leaves for each row.
#pragma once

#include <utility>

#include "cuda/rows.h"
#include "cuda/team.h"

namespace bsl {
namespace {

// Where an element's rows lie.
template <typename T, int N>
struct RowData {
  const T* row[N];
  const T* grad;  // null in a forward pass

  template <typename Call>
  __device__ RowData(const Call& a, const Operand* grad_value, int64_t r) {
    for (int i = 0; i < N; ++i) row[i] = at(a.inputs[i], a.shape, r);
    grad = grad_value == nullptr ? nullptr : at(*grad_value, a.shape, r);
  }

  __device__ static const T* at(const Operand& operand, const DeviceShape& shape, int64_t r) {
    return static_cast<const T*>(operand.data) + offset_at(r, operand.strides, shape);
  }
};

// f(column, which in its group) for a part of a row.
template <typename T, bool kGradient, int N, typename F>
__device__ __forceinline__ void for_each_column(const RowData<T, N>& data, Part part, const F& f) {
  Group<T> rows[N], grad = {};
  for (int i = 0; i < N; ++i) rows[i] = read<T, T>(data.row[i], part);
  if (kGradient) grad = read<T, T>(data.grad, part);
  for_each(grad, part, [&](T g, int j) {
    Column<T, N> c;
    for (int i = 0; i < N; ++i) c.row[i] = rows[i].at[j];
    c.grad = g;
    f(c, j);
  });
}

template <typename Op, typename T, size_t... I>
__device__ __forceinline__ void add_terms(Sums& s, const Column<T, Op::rows>& c,
                                          std::index_sequence<I...>) {
  ((s.of[I] += Op::template term<static_cast<int>(I)>(c)), ...);
}

template <typename Op, bool kGradient, typename T>
__device__ __forceinline__ Sums sums_of(const RowData<T, Op::rows>& data, int64_t width,
                                        const Team& team) {
  constexpr int n = kGradient ? Op::sums_with_gradient : Op::sums;
  Sums sums = {};
  for_each_part<T>(0, width, team.rank, team.size, [&](Part part) {
    for_each_column<T, kGradient>(data, part, [&](const Column<T, Op::rows>& c, int) {
      add_terms<Op>(sums, c, std::make_index_sequence<n>());
    });
  });
  for (int i = 0; i < n; ++i) sums.of[i] = team.sum(sums.of[i]);
  return sums;
}

template <typename Op, typename T, typename Call>
__device__ __forceinline__ RowNumbers<T> numbers_of(const Call& a, int64_t r) {
  RowNumbers<T> numbers = {};
  for (int i = 0; i < Op::numbers; ++i) {
    numbers.of[i] = element<T>(a.inputs[Op::rows + i], a.shape, r);
  }
  return numbers;
}

template <typename Op, typename T, size_t... I>
__device__ __forceinline__ void gradients_of(const Coefficients<T>& by,
                                             const Column<T, Op::rows>& c, T* out,
                                             std::index_sequence<I...>) {
  ((out[I] = Op::template gradient<static_cast<int>(I)>(by, c)), ...);
}

template <typename Op, typename T>
__global__ void __launch_bounds__(kThreads)
    row_forward_kernel(const __grid_constant__ RowForward a, int size) {
  const int64_t width = a.widths[0];
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t r) {
    const RowData<T, Op::rows> data(a, nullptr, r);
    const Sums sums = sums_of<Op, false>(data, width, team);
    const RowResult<T> found = Op::forward(sums, numbers_of<Op, T>(a, r), static_cast<T>(width));
    if (team.rank == 0) static_cast<T*>(a.log)[r] = found.log;
    for_each_part<T>(0, width, team.rank, team.size, [&](Part part) {
      Group<T> out;
      for_each_column<T, false>(data, part, [&](const Column<T, Op::rows>& c, int j) {
        out.at[j] = Op::value(found.by, c);
      });
      write(out, static_cast<T*>(a.value) + r * width, part);
    });
  });
}

template <typename Op, typename T>
__global__ void __launch_bounds__(kThreads)
    row_backward_kernel(const __grid_constant__ RowBackward a, int size) {
  const int64_t width = a.widths[0];
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t r) {
    const RowData<T, Op::rows> data(a, &a.grad_value, r);
    const Sums sums = sums_of<Op, true>(data, width, team);
    const RowGradients<T> found = Op::backward(sums, numbers_of<Op, T>(a, r), static_cast<T>(width),
                                               element<T>(a.grad_log, a.shape, r));
    if (team.rank == 0) {
      for (int i = 0; i < Op::numbers; ++i) {
        write_element(a.grads[Op::rows + i], r, found.numbers.of[i]);
      }
      if (a.coefficients != nullptr) static_cast<Coefficients<T>*>(a.coefficients)[r] = found.by;
    }
    for_each_part<T>(0, width, team.rank, team.size, [&](Part part) {
      Group<T> by[Op::rows];
      for_each_column<T, true>(data, part, [&](const Column<T, Op::rows>& c, int j) {
        T gradients[Op::rows];
        gradients_of<Op>(found.by, c, gradients, std::make_index_sequence<Op::rows>());
        for (int i = 0; i < Op::rows; ++i) by[i].at[j] = gradients[i];
      });
      for (int i = 0; i < Op::rows; ++i) {
        if (a.grads[i] != nullptr) write(by[i], static_cast<T*>(a.grads[i]) + r * width, part);
      }
    });
  });
}

// Adds up gradients over the rows of a chunk: a block for each 32 columns, whose warps share the
// rows.
template <typename Op, typename T>
__global__ void __launch_bounds__(kThreads)
    row_sums_kernel(const __grid_constant__ RowBackward a, int64_t tiles) {
  constexpr int n = Op::rows;
  const int64_t width = a.widths[0];
  const int64_t chunk = blockIdx.x / tiles;
  const int64_t column = blockIdx.x % tiles * kColumns + threadIdx.x % kColumns;
  const int64_t end = least((chunk + 1) * kSumChunk, a.shape.numel);
  double total[n] = {};
  for (int64_t r = chunk * kSumChunk + threadIdx.x / kColumns; r < end; r += kParts) {
    const RowData<T, n> data(a, &a.grad_value, r);
    if (column >= width) continue;
    const Coefficients<T> by = static_cast<const Coefficients<T>*>(a.coefficients)[r];
    Column<T, n> c;
    for (int i = 0; i < n; ++i) c.row[i] = data.row[i][column];
    c.grad = data.grad[column];
    T gradients[n];
    gradients_of<Op>(by, c, gradients, std::make_index_sequence<n>());
    for (int i = 1; i < n; ++i) total[i] += static_cast<double>(gradients[i]);
  }
  for (int i = 1; i < n; ++i) {
    total[i] = combined_parts(total[i], [](double x, double y) { return x + y; });
    if (a.sums[i] != nullptr && threadIdx.x < kColumns && column < width) {
      a.sums[i][chunk * width + column] = total[i];
    }
  }
}

template <typename Op, typename T>
void row_forward(const RowForward& a, cudaStream_t stream) {
  const int team = team_size(a.widths[0]);
  row_forward_kernel<Op, T><<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

template <typename Op, typename T>
void row_backward(const RowBackward& a, cudaStream_t stream) {
  const int team = team_size(a.widths[0]);
  row_backward_kernel<Op, T><<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
  const int64_t tiles = (a.widths[0] + kColumns - 1) / kColumns;
  const unsigned n = static_cast<unsigned>((a.shape.numel + kSumChunk - 1) / kSumChunk * tiles);
  if (a.coefficients != nullptr && n > 0) {
    row_sums_kernel<Op, T><<<n, kThreads, 0, stream>>>(a, tiles);
  }
}

template <typename Op>
constexpr RowKernels row_kernels() {
  return {row_map_signature<Op>(),
          1,
          {{row_forward<Op, float>, row_forward<Op, double>, row_backward<Op, float>,
            row_backward<Op, double>}}};
}

}  // namespace
}  // namespace bsl
