// Steps made of maps of rows (core/rows.h): the features of a row are its columns.
#pragma once

#include <utility>

#include "core/bijectors/planar.h"
#include "core/bijectors/radial.h"
#include "core/rows.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// inputs: the columns of each of the op's rows, then a lane for each of its numbers. outputs: the
// columns of the row that it makes.
template <typename Op>
struct RowStep {
  static const char* fault(const Step& step, const Program&) {
    const size_t n = step.outputs.size();
    return step.inputs.size() == Op::rows * n + Op::numbers ? nullptr : "inputs and outputs";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const size_t n = step.outputs.size();
    TileSums sums = {};
    add_up<false>(step, t, sums);
    T by[kMaxCoefficients][kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      const RowResult<T> found =
          Op::forward(sums_at(sums, r), numbers(step, t, r), static_cast<T>(n));
      t.log[r] += static_cast<double>(found.log);
      for (int k = 0; k < Op::coefficients; ++k) by[k][r] = found.by.of[k];
    }
    for (size_t c = 0; c < n; ++c) {
      T* value = t.lane(step.outputs[c]);
      for_each_column(step, t, c, Rows(), [&](int r, const Column<T, Op::rows>& column) {
        value[r] = Op::value(coefficients_at(by, r), column);
      });
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const size_t n = step.outputs.size();
    TileSums sums = {};
    add_up<true>(step, t, sums);
    T by[kMaxCoefficients][kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      const RowGradients<T> g =
          Op::backward(sums_at(sums, r), numbers(step, t, r), static_cast<T>(n), t.grad_log[r]);
      for (int k = 0; k < Op::coefficients; ++k) by[k][r] = g.by.of[k];
      for (int k = 0; k < Op::numbers; ++k) t.grad(number(step, k))[r] += g.numbers.of[k];
    }
    for (size_t c = 0; c < n; ++c) {
      const T* grad_value = t.grad(step.outputs[c]);
      const auto add = [&](auto which) {
        constexpr int k = decltype(which)::value;
        T* grad = t.grad(step.inputs[k * n + c]);
        for_each_column(step, t, c, Rows(), [&](int r, Column<T, Op::rows> column) {
          column.grad = grad_value[r];
          grad[r] += Op::template gradient<k>(coefficients_at(by, r), column);
        });
      };
      for_each_index(Rows(), add);
    }
  }

 private:
  using Rows = std::make_index_sequence<Op::rows>;
  using TileSums = double[kMaxSums][kTileRows];

  static int32_t number(const Step& step, int k) {
    return step.inputs[Op::rows * step.outputs.size() + k];
  }

  template <typename T>
  static RowNumbers<T> numbers(const Step& step, const TileOf<T>& t, int r) {
    RowNumbers<T> found = {};
    for (int k = 0; k < Op::numbers; ++k) found.of[k] = t.lane(number(step, k))[r];
    return found;
  }

  static Sums sums_at(const TileSums& sums, int r) {
    Sums found;
    for (int k = 0; k < kMaxSums; ++k) found.of[k] = sums[k][r];
    return found;
  }
  template <typename T>
  static Coefficients<T> coefficients_at(const T (&by)[kMaxCoefficients][kTileRows], int r) {
    Coefficients<T> found = {};
    for (int k = 0; k < Op::coefficients; ++k) found.of[k] = by[k][r];
    return found;
  }

  template <typename F, size_t... I>
  static void for_each_index(std::index_sequence<I...>, const F& f) {
    (f(std::integral_constant<int, static_cast<int>(I)>()), ...);
  }

  // Calls f(r, column) for the rows of a tile; without a gradient.
  template <typename T, typename F, size_t... K>
  static void for_each_column(const Step& step, const TileOf<T>& t, size_t c,
                              std::index_sequence<K...>, const F& f) {
    const size_t n = step.outputs.size();
    const T* row[Op::rows] = {t.lane(step.inputs[K * n + c])...};
#pragma GCC ivdep
    for (int r = 0; r < kTileRows; ++r) f(r, Column<T, Op::rows>{{row[K][r]...}, T(0)});
  }

  template <bool kGradient, typename T>
  static void add_up(const Step& step, const TileOf<T>& t, TileSums& sums) {
    constexpr int count = kGradient ? Op::sums_with_gradient : Op::sums;
    for (size_t c = 0; c < step.outputs.size(); ++c) {
      const T* grad = kGradient ? t.grad(step.outputs[c]) : nullptr;
      const auto add = [&](auto which) {
        constexpr int k = decltype(which)::value;
        for_each_column(step, t, c, Rows(), [&](int r, Column<T, Op::rows> column) {
          if constexpr (kGradient) column.grad = grad[r];
          sums[k][r] += Op::template term<k>(column);
        });
      };
      for_each_index(std::make_index_sequence<count>(), add);
    }
  }
};

using PlanarMap = RowStep<planar::Planar>;
using PlanarInverseMap = RowStep<planar::PlanarInverse>;
using RadialMap = RowStep<radial::Radial>;
using RadialInverseMap = RowStep<radial::RadialInverse>;

}  // namespace
}  // namespace bsl
