// Products of small matrices in registers: SIMD lanes are rows of a tile, or columns of a matrix.
//
// The compiler does not keep a block of sums in registers by itself, so vectors are named here.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "core/platform.h"
#include "core/program.h"

namespace bsl {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kMostOutputs = 12;  // 24 sums of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kMostOutputs = 6;  // 12 sums of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kMostOutputs = 6;
#endif

template <typename T>
struct VectorOf {
  static constexpr int length = kVectorBytes / static_cast<int>(sizeof(T));
  typedef T type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

// A block of sums is kMostOutputs x 2 vectors.
template <typename T>
constexpr int kBlockLength = 2 * VectorOf<T>::length;
static_assert(kTileRows % kBlockLength<float> == 0 && kTileRows % kBlockLength<double> == 0, "");

template <typename T>
BSL_HD Vector<T> load(const T* data) {
  return *reinterpret_cast<const Vector<T>*>(data);
}
template <typename T>
BSL_HD void store(T* data, const Vector<T>& v) {
  *reinterpret_cast<Vector<T>*>(data) = v;
}

// A square of as many vectors as a vector is long, transposed.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define BSL_HAVE_SHUFFLE
#endif
#endif
#if defined(BSL_HAVE_SHUFFLE)
template <int Half, typename V, int... I>
BSL_HD V interleave(const V& a, const V& b, std::integer_sequence<int, I...>) {
  constexpr int length = static_cast<int>(sizeof...(I));
  return __builtin_shufflevector(a, b, ((I + Half * length) / 2 + (I % 2) * length)...);
}

template <typename T>
BSL_HD void transpose(Vector<T>* square) {
  constexpr int length = VectorOf<T>::length;
  using Lanes = std::make_integer_sequence<int, length>;
  Vector<T> other[length];
  for (int done = 1; done < length; done *= 2) {
    for (int i = 0; i < length / 2; ++i) {
      other[2 * i] = interleave<0>(square[i], square[i + length / 2], Lanes());
      other[2 * i + 1] = interleave<1>(square[i], square[i + length / 2], Lanes());
    }
    for (int i = 0; i < length; ++i) square[i] = other[i];
  }
}
#else
template <typename T>
BSL_HD void transpose(Vector<T>* square) {
  constexpr int length = VectorOf<T>::length;
  for (int i = 0; i < length; ++i) {
    for (int j = 0; j < i; ++j) {
      const T above = square[j][i];
      square[j][i] = square[i][j];
      square[i][j] = above;
    }
  }
}
#endif

// The sum of the products of two lanes.
template <typename T>
BSL_HD T product_of_lanes(const T* a, const T* b) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int r = 0; r < kTileRows; ++r) total += a[r] * b[r];
  return total;
}

// Adds the sum of each of n lanes to numbers of an array, which are `between` apart.
template <typename T>
BSL_HD void add_row_sums(const T* lanes, int n, int64_t between, T* to) {
  constexpr int length = VectorOf<T>::length;
  for (int first = 0; first < n; first += length) {
    Vector<T> square[length];
    for (int i = 0; i < length; ++i) {
      const T* lane = lanes + (first + i < n ? first + i : first) * kTileRows;
      square[i] = load(lane);
      for (int r = length; r < kTileRows; r += length) square[i] += load(lane + r);
    }
    transpose<T>(square);
    for (int half = length / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) square[i] += square[i + half];
    }
    for (int i = 0; i < length && first + i < n; ++i) to[(first + i) * between] += square[0][i];
  }
}

// Calls f(first, count) with a constant count for blocks that cover [begin, end).
template <typename F>
BSL_HD void for_each_block(int begin, int end, const F& f) {
  int first = begin;
  for (; first + kMostOutputs <= end; first += kMostOutputs) {
    f(first, std::integral_constant<int, kMostOutputs>());
  }
  if (kMostOutputs > 8 && first + 8 <= end) {
    f(first, std::integral_constant<int, 8>());
    first += 8;
  }
  if (first + 4 <= end) {
    f(first, std::integral_constant<int, 4>());
    first += 4;
  }
  if (first + 2 <= end) {
    f(first, std::integral_constant<int, 2>());
    first += 2;
  }
  if (first < end) f(first, std::integral_constant<int, 1>());
}

}  // namespace
}  // namespace bsl
