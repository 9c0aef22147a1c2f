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
#include "cpu/element_tile.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

// Arrays 8 KB apart would share few lines of the L1 cache, where their first kilobyte is in use.
template <typename T>
using Rows = T[kMaxComponents * kRows + 272];

// What every tile has.
template <int Operands, int Longest, bool HasValue = true>
struct TileOfElements {
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

// A tile's functions, for those that do not know its type.
template <typename T, typename Tile>
struct TileFunctions {
  static Tile& own(void* tile) { return *static_cast<Tile*>(tile); }

  static void with_tile(const ElementCall& call, void (*use)(void* tile, void* context),
                        void* context) {
    Tile tile(call);
    use(&tile, context);
  }
  static void load(void* tile, const T* x, const T* const* lanes) { own(tile).load(x, lanes); }
  static void map(void* tile, T* value, T* log) { own(tile).map(value, log); }
  static int invalid(void* tile) { return own(tile).invalid(); }
  static void gradients(void* tile, const T* by_value, const T* by_log, T* by_x) {
    own(tile).gradients(by_value, by_log, by_x);
  }
  static const T* gradient(void* tile, int operand) { return own(tile).gradient(operand); }
};

template <typename T, template <typename> class Tile>
constexpr ElementTile<T> kElementTile = {Tile<T>::kOperands,
                                         TileFunctions<T, Tile<T>>::with_tile,
                                         TileFunctions<T, Tile<T>>::load,
                                         TileFunctions<T, Tile<T>>::map,
                                         TileFunctions<T, Tile<T>>::invalid,
                                         TileFunctions<T, Tile<T>>::gradients,
                                         TileFunctions<T, Tile<T>>::gradient};

template <typename T, template <typename> class Tile>
void element_forward(const RowForward& a) {
  BSL_ISA::run_elements(a, kElementTile<T, Tile>);
}

template <typename T, template <typename> class Tile>
void element_backward(const RowBackward& a) {
  BSL_ISA::run_elements(a, kElementTile<T, Tile>);
}

template <template <typename> class Tile>
constexpr RowVariant kElementVariant = {
    element_forward<float, Tile>,   element_forward<double, Tile>, element_backward<float, Tile>,
    element_backward<double, Tile>, &kElementTile<float, Tile>,    &kElementTile<double, Tile>};

// A variant for each.
template <template <typename> class First, template <typename> class... Others>
constexpr RowKernels element_kernels() {
  using Op = First<float>;
  return {element_signature(Op::kOperands, Op::kHasValue, Op::kLongest),
          1 + static_cast<int>(sizeof...(Others)),
          {kElementVariant<First>, kElementVariant<Others>...},
          Op::fits};
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
