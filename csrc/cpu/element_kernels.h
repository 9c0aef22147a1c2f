// The kernels of ops that take a number and rows of parameters for each element (core/rows.h). An
// op is a class Tile<T>, which works on kRows elements, made of the call, with
//
//   static constexpr int kOperands;   // how many rows
//   static constexpr bool kHasValue;  // whether it returns a number beside the logarithm
//   static constexpr int kLongest;    // the longest rows
//   void load(const T* x, const T* const* lanes);  // lanes[operand][number * kRows + t]
//   void map(T* value, T* log);
//   int invalid() const;  // the bits of inputs that were outside their domain in map()
//   void gradients(const T* by_value, const T* by_log, T* by_x);
//   const T* gradient(int operand);  // that of the operand's rows, as they came
//
// Rows of parameters are transposed to lanes [number][element]: SIMD lanes run over elements. They
// stay where they are until the last call for the tile.
#pragma once

#include "core/pointwise.h"
#include "cpu/block.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

using ElementCall = RowCall<PlannedShape>;

// Arrays 8 KB apart would share few lines of the L1 cache, where their first kilobyte is in use.
template <typename T>
using Rows = T[kMaxComponents * kRows + 272];

// What every tile has.
template <int Operands, int Longest, bool HasValue = true>
struct ElementTile {
  static constexpr int kOperands = Operands, kLongest = Longest;
  static constexpr bool kHasValue = HasValue;

  // Whether the call's rows are as long as the op needs them.
  static bool fits(const ElementCall& call) {
    for (int k = 2; k <= kOperands; ++k) {
      if (call.widths[k] != call.widths[1]) return false;
    }
    return true;
  }

  int invalid() const { return 0; }
};

template <typename T, typename Tile>
struct ElementReaders {
  explicit ElementReaders(const ElementCall& a)
      : widths(a.widths),
        x(a.inputs[0], a.shape),
        rows{{a.inputs[1], a.shape}, {a.inputs[2], a.shape}, {a.inputs[3], a.shape}} {
    static_assert(Tile::kOperands < kMaxRowInputs, "");
  }

  // Calls f(first) for each tile of a block, loaded; `first` counts within the block.
  template <typename F>
  void for_each_tile(Tile& tile, int64_t start, int length, const F& f) {
    const T* numbers = x.block(start, length);
    const T* const* found[kMaxRowInputs - 1] = {};
    for (int i = 0; i < Tile::kOperands; ++i) found[i] = rows[i].block(start, length);
    const T* operands[kMaxRowInputs - 1] = {};
    for (int k = 0; k < Tile::kOperands; ++k) operands[k] = lanes[k];
    for (int i = 0; i < length; i += kRows) {
      for (int k = 0; k < Tile::kOperands; ++k) {
        load_rows(found[k] + i, static_cast<int>(widths[1 + k]), lanes[k]);
      }
      tile.load(numbers + i, operands);
      f(i);
    }
  }

  const int64_t* widths;
  alignas(64) T lanes[Tile::kOperands][(Tile::kLongest + 1) * kRows];
  Reader<T> x;
  RowReader<T> rows[kMaxRowInputs - 1];
};

template <typename T, template <typename> class Tile>
void element_forward(const RowForward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) {
    ElementReaders<T, Tile<T>> readers(a);
    Writer<T> value(a.value);
    Reducer<T> log(a.shape.plan, a.reduction, chunk, a.log, a.partials);
    Tile<T> tile(a);
    alignas(64) T values[kBlock] = {}, logs[kBlock];
    int invalid = 0;
    for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int n) {
      readers.for_each_tile(tile, start, n, [&](int i) {
        tile.map(values + i, logs + i);
        invalid |= tile.invalid();
      });
      value.store(values, start, n);
      log.add(logs, start, n);
    });
    if (invalid != 0) __atomic_fetch_or(a.invalid, invalid, __ATOMIC_RELAXED);
  });
  combine_partials<T>(a.shape.plan, a.partials, a.log);
}

template <typename T, template <typename> class Tile>
void element_backward(const RowBackward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) {
    ElementReaders<T, Tile<T>> readers(a);
    Reader<T> grad_value(a.grad_value, a.shape), grad_log(a.grad_log, a.shape);
    Writer<T> grad_x(a.grads[0]);
    Tile<T> tile(a);
    alignas(64) T by_x[kBlock] = {};
    for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int n) {
      const T* by_value = grad_value.block(start, n);
      const T* by_log = grad_log.block(start, n);
      readers.for_each_tile(tile, start, n, [&](int i) {
        tile.gradients(by_value + i, by_log + i, by_x + i);
        for (int k = Tile<T>::kOperands - 1; k >= 0; --k) {
          T* data = static_cast<T*>(a.grads[1 + k]);
          if (data == nullptr) continue;
          transpose_back(tile.gradient(k), n - i < kRows ? n - i : kRows,
                         static_cast<int>(a.widths[1 + k]), data + (start + i) * a.widths[1 + k]);
        }
      });
      grad_x.store(by_x, start, n);
    });
  });
}

template <template <typename> class Tile>
constexpr RowVariant kElementVariant = {element_forward<float, Tile>, element_forward<double, Tile>,
                                        element_backward<float, Tile>,
                                        element_backward<double, Tile>};

// A variant for each.
template <template <typename> class First, template <typename> class... Others>
constexpr RowKernels element_kernels() {
  using Op = First<float>;
  return {element_signature(Op::kOperands, Op::kHasValue, Op::kLongest),
          1 + static_cast<int>(sizeof...(Others)),
          {kElementVariant<First>, kElementVariant<Others>...}};
}

// One for all variants, which the call tells apart.
template <template <typename> class Tile, int N>
constexpr RowKernels element_kernels_of_variants() {
  RowKernels kernels = element_kernels<Tile>();
  kernels.n_variants = N;
  for (int i = 1; i < N; ++i) kernels.variants[i] = kernels.variants[0];
  return kernels;
}

}  // namespace
}  // namespace bsl
