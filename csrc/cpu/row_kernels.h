// The kernels of an op, made from the functions of its RowMap (core/rows.h):
//
//   namespace BSL_ISA {
//   extern const RowKernels foo_kernels = row_kernels<foo::Foo>();
//   }
//
// Rows are taken in tiles. A tile stays in the cache while it is read twice. The first walk sums
// terms of columns, and the second makes the results. SIMD lanes are columns in both. In between,
// functions of the sums are computed, and lanes are rows.
#pragma once

#include <utility>

#include "cpu/block.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

template <typename T>
using Lanes = T[kRows];

// The beginnings of an element's rows, and of its row of the value's gradient.
template <typename T, int N>
struct RowAddresses {
  const T* row[N];
  const T* grad;
};

// Whether a walk takes sum I. Sums of parameters alone are taken only if they are asked for.
template <typename Op, bool kGradient, bool kParameters, int I>
constexpr bool takes_sum() {
  if constexpr (I < (kGradient ? Op::sums_with_gradient : Op::sums)) {
    return kParameters || !Op::template of_parameters<I>;
  } else {
    return false;
  }
}

// Compilers vectorise these loops because they are functions of pointers alone.
template <typename Op, bool kGradient, bool kParameters, typename T, typename... Row>
Sums sums_of(int64_t n, const T* grad, const Row*... row) {
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4)
  for (int64_t i = 0; i < n; ++i) {
    const Column<T, Op::rows> c = {{row[i]...}, kGradient ? grad[i] : T(0)};
    if constexpr (takes_sum<Op, kGradient, kParameters, 0>()) s0 += Op::template term<0>(c);
    if constexpr (takes_sum<Op, kGradient, kParameters, 1>()) s1 += Op::template term<1>(c);
    if constexpr (takes_sum<Op, kGradient, kParameters, 2>()) s2 += Op::template term<2>(c);
    if constexpr (takes_sum<Op, kGradient, kParameters, 3>()) s3 += Op::template term<3>(c);
    if constexpr (takes_sum<Op, kGradient, kParameters, 4>()) s4 += Op::template term<4>(c);
  }
  return {{s0, s1, s2, s3, s4}};
}

template <typename Op, typename T, typename... Row>
void write_values(const Coefficients<T> by, int64_t n, T* out, const Row*... row) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    out[i] = Op::value(by, Column<T, Op::rows>{{row[i]...}, T(0)});
  }
}

// The gradient of row I, or its sum over all rows of a chunk.
template <typename Op, int I, typename T, typename... Row>
void write_gradients(const Coefficients<T> by, int64_t n, T* out, double* sums, const T* grad,
                     const Row*... row) {
  if (out != nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      out[i] = Op::template gradient<I>(by, Column<T, Op::rows>{{row[i]...}, grad[i]});
    }
  }
  if (sums != nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const Column<T, Op::rows> c = {{row[i]...}, grad[i]};
      sums[i] += static_cast<double>(Op::template gradient<I>(by, c));
    }
  }
}

// The rows of a block and the numbers that go with them, and the sums of a tile of them.
template <typename Op, typename T>
class RowTiles {
 public:
  template <typename Call>
  explicit RowTiles(const Call& a)
      : RowTiles(a, std::make_index_sequence<Op::rows>(), std::make_index_sequence<Op::numbers>()) {
  }

  void load(int64_t start, int length, const T* const* grad) {
    for (int k = 0; k < Op::rows; ++k) rows_[k] = row_readers_[k].block(start, length);
    for (int k = 0; k < Op::numbers; ++k) numbers_[k] = number_readers_[k].block(start, length);
    grad_ = grad;
  }

  RowAddresses<T, Op::rows> at(int i) const {
    RowAddresses<T, Op::rows> found;
    for (int k = 0; k < Op::rows; ++k) found.row[k] = rows_[k][i];
    found.grad = grad_ == nullptr ? nullptr : grad_[i];
    return found;
  }

  // Takes the sums of `n` rows, from row `i` on. Those of parameters are taken where these change.
  template <bool kGradient, size_t... K>
  void add_up(int i, int n, int64_t width, std::index_sequence<K...>) {
    for (int k = 0; k < kMaxSums; ++k) {
      for (int r = 0; r < kRows; ++r) sums_[k][r] = 0;
    }
    RowAddresses<T, Op::rows> before = {};
    for (int r = 0; r < n; ++r) {
      const RowAddresses<T, Op::rows> here = at(i + r);
      bool same = r > 0;
      for (int k = 1; k < Op::rows; ++k) same = same && here.row[k] == before.row[k];
      before = here;
      const Sums s = same ? sums_of<Op, kGradient, false>(width, here.grad, here.row[K]...)
                          : sums_of<Op, kGradient, true>(width, here.grad, here.row[K]...);
      put<0>(s, r, same);
      put<1>(s, r, same);
      put<2>(s, r, same);
      put<3>(s, r, same);
      put<4>(s, r, same);
    }
  }

  Sums sums(int r) const {
    return {{sums_[0][r], sums_[1][r], sums_[2][r], sums_[3][r], sums_[4][r]}};
  }

  RowNumbers<T> numbers(int i) const {
    static_assert(Op::numbers >= 1 && Op::numbers <= kMaxRowNumbers, "");
    return {{numbers_[0][i], numbers_[Op::numbers - 1][i]}};
  }

 private:
  template <typename Call, size_t... R, size_t... N>
  RowTiles(const Call& a, std::index_sequence<R...>, std::index_sequence<N...>)
      : row_readers_{RowReader<T>(a.inputs[R], a.shape)...},
        number_readers_{Reader<T>(a.inputs[Op::rows + N], a.shape)...} {}

  template <int I>
  void put(const Sums& s, int r, bool same) {
    if constexpr (I < Op::sums_with_gradient) {
      const bool known = same && Op::template of_parameters<I>;
      sums_[I][r] = known ? sums_[I][r - 1] : s.of[I];
    }
  }

  RowReader<T> row_readers_[Op::rows];
  Reader<T> number_readers_[Op::numbers];
  const T* const* rows_[Op::rows];
  const T* numbers_[Op::numbers];
  const T* const* grad_ = nullptr;
  alignas(64) Lanes<double> sums_[kMaxSums];
};

// Coefficients of a tile's rows.
template <typename Op, typename T>
struct TileCoefficients {
  alignas(64) Lanes<T> of[Op::coefficients];

  void set(int r, const Coefficients<T>& by) {
    for (int k = 0; k < Op::coefficients; ++k) of[k][r] = by.of[k];
  }
  Coefficients<T> get(int r) const {
    Coefficients<T> by = {};
    for (int k = 0; k < Op::coefficients; ++k) by.of[k] = of[k][r];
    return by;
  }
};

template <typename Op, typename T, size_t... R>
void row_forward_chunk(const RowForward& a, int64_t chunk, std::index_sequence<R...> every) {
  RowTiles<Op, T> tiles(a);
  const int64_t width = a.widths[0];
  T* value = static_cast<T*>(a.value);
  T* log = static_cast<T*>(a.log);
  alignas(64) Lanes<T> logs;
  TileCoefficients<Op, T> by;
  for_each_block(
      a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int length) {
        tiles.load(start, length, nullptr);
        for (int i = 0; i < length; i += kRows) {
          const int n = length - i < kRows ? length - i : kRows;
          tiles.template add_up<false>(i, n, width, every);
          for (int r = 0; r < kRows; ++r) {
            const RowResult<T> found =
                Op::forward(tiles.sums(r), tiles.numbers(i + r), static_cast<T>(width));
            logs[r] = found.log;
            by.set(r, found.by);
          }
          for (int r = 0; r < n; ++r) {
            const RowAddresses<T, Op::rows> here = tiles.at(i + r);
            write_values<Op>(by.get(r), width, value + (start + i + r) * width, here.row[R]...);
          }
          for (int r = 0; r < n; ++r) log[start + i + r] = logs[r];
        }
      });
}

template <typename Op, typename T, size_t... R>
void row_backward_chunk(const RowBackward& a, int64_t chunk, std::index_sequence<R...> every) {
  RowTiles<Op, T> tiles(a);
  RowReader<T> value_reader(a.grad_value, a.shape);
  Reader<T> log_reader(a.grad_log, a.shape);
  const int64_t width = a.widths[0];
  alignas(64) Lanes<T> numbers[kMaxRowNumbers];
  TileCoefficients<Op, T> by;
  for_each_block(
      a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int length) {
        tiles.load(start, length, value_reader.block(start, length));
        const T* grad_log = log_reader.block(start, length);
        for (int i = 0; i < length; i += kRows) {
          const int n = length - i < kRows ? length - i : kRows;
          tiles.template add_up<true>(i, n, width, every);
          for (int r = 0; r < kRows; ++r) {
            const RowGradients<T> g = Op::backward(tiles.sums(r), tiles.numbers(i + r),
                                                   static_cast<T>(width), grad_log[i + r]);
            for (int k = 0; k < Op::numbers; ++k) numbers[k][r] = g.numbers.of[k];
            by.set(r, g.by);
          }
          for (int r = 0; r < n; ++r) {
            const RowAddresses<T, Op::rows> here = tiles.at(i + r);
            const auto write = [&](auto which) {
              constexpr int k = decltype(which)::value;
              T* out = static_cast<T*>(a.grads[k]);
              double* sums = a.sums[k];
              write_gradients<Op, k>(
                  by.get(r), width, out == nullptr ? nullptr : out + (start + i + r) * width,
                  sums == nullptr ? nullptr : sums + chunk * width, here.grad, here.row[R]...);
            };
            (write(std::integral_constant<int, R>()), ...);
          }
          for (int k = 0; k < Op::numbers; ++k) {
            T* data = static_cast<T*>(a.grads[Op::rows + k]);
            for (int r = 0; data != nullptr && r < n; ++r) data[start + i + r] = numbers[k][r];
          }
        }
      });
}

template <typename Op, typename T>
void row_forward(const RowForward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) {
    row_forward_chunk<Op, T>(a, chunk, std::make_index_sequence<Op::rows>());
  });
}

template <typename Op, typename T>
void row_backward(const RowBackward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) {
    row_backward_chunk<Op, T>(a, chunk, std::make_index_sequence<Op::rows>());
  });
}

template <typename Op>
constexpr RowKernels row_kernels() {
  return {row_map_signature<Op>(),
          1,
          {{row_forward<Op, float>, row_forward<Op, double>, row_backward<Op, float>,
            row_backward<Op, double>, nullptr, nullptr}},
          nullptr};
}

}  // namespace
}  // namespace bsl
