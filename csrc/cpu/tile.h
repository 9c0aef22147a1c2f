// Functions that reductions over rows of contiguous numbers share, such as softmaxes.
//
// A tile of kRows rows with up to kNarrow columns is transposed, and SIMD lanes are rows. For more
// columns, lanes are columns.
#pragma once

#include "core/softmax.h"
#include "cpu/block.h"
#include "cpu/layout.h"

namespace bsl {
namespace {

constexpr int kNarrow = 64;
constexpr int kRows = 32;
static_assert(kBlock % kRows == 0, "");

// Transposes a tile of `rows` rows to [columns][kRows]. Further lanes are copies of the last row.
template <typename T>
void transpose(const T* data, int rows, int columns, T* tile) {
  for (int r = 0; r < kRows; ++r) {
    const T* row = data + static_cast<int64_t>(r < rows ? r : rows - 1) * columns;
    for (int c = 0; c < columns; ++c) tile[c * kRows + r] = row[c];
  }
}

// Writes the rows of a tile back to their places.
template <typename T>
void transpose_back(const T* tile, int rows, int columns, T* data) {
  for (int r = 0; r < rows; ++r) {
    T* row = data + static_cast<int64_t>(r) * columns;
    for (int c = 0; c < columns; ++c) row[c] = tile[c * kRows + r];
  }
}

// Makes a tile of rows that lie anywhere.
template <typename T>
void load_rows(const T* const* rows, int columns, T* tile) {
  for (int r = 0; r < kRows; ++r) {
    const T* row = rows[r];
    for (int c = 0; c < columns; ++c) tile[c * kRows + r] = row[c];
  }
}

// The largest number of each row of a tile. NaN is passed over, unless it is the first number.
template <typename T>
void tile_max(const T* tile, int columns, T* max) {
  for (int r = 0; r < kRows; ++r) max[r] = tile[r];
  for (int c = 1; c < columns; ++c) {
    for (int r = 0; r < kRows; ++r) max[r] = larger(tile[c * kRows + r], max[r]);
  }
}

// Replaces a tile's numbers by their weights, which it sums.
template <typename T>
void tile_weights(T* tile, int columns, const T* max, T* sums) {
  for (int r = 0; r < kRows; ++r) sums[r] = T(0);
  for (int c = 0; c < columns; ++c) {
    for (int r = 0; r < kRows; ++r) {
      const T w = weight(tile[c * kRows + r], max[r]);
      tile[c * kRows + r] = w;
      sums[r] += w;
    }
  }
}

// Likewise for one long row.
template <typename T>
T row_max(const T* row, int64_t columns) {
  T max = row[0];
#pragma omp simd reduction(max : max)
  for (int64_t c = 0; c < columns; ++c) max = row[c] > max ? row[c] : max;
  return max;
}

// The sum of a row's weights. `weights` gets them, unless it is null. It may be the row itself.
template <typename T>
T row_weights(const T* row, int64_t columns, T max, T* weights) {
  alignas(64) T block[kBlock];
  double total = 0;
  for (int64_t start = 0; start < columns; start += kBlock) {
    const int length =
        columns - start < kBlock ? static_cast<int>(columns - start) : static_cast<int>(kBlock);
    T* out = weights == nullptr ? block : weights + start;
#pragma GCC ivdep
    for (int i = 0; i < length; ++i) out[i] = weight(row[start + i], max);
    total += sum(out, length);
  }
  return static_cast<T>(total);
}

}  // namespace
}  // namespace bsl
