// Elements that have rows of parameters of their own: a thread for each element.
//
// A block has its threads' rows in shared memory. Neighbouring threads read and write them
// together, number after number as they lie in memory; then each thread walks its own row. Rows
// there are an odd number of T apart, so that the threads of a warp meet different banks.
#pragma once

#include "cuda/block.h"

namespace bsl {
namespace {

constexpr int kMostRowThreads = 128;
constexpr int kMostRowOperands = 3;
// As much as every device has without being asked for more, less what BlockRows takes itself.
constexpr size_t kSharedBytes = 48 * 1024 - sizeof(int64_t) * kMostRowOperands * kMostRowThreads;

// Threads of a block, each with `arrays` rows of `width` numbers.
template <typename T>
struct RowPlan {
  int threads = kMostRowThreads;
  int stride;  // from row to row
  size_t bytes;
  int64_t blocks;

  RowPlan(int64_t elements, int arrays, int width) : stride(width | 1) {
    const size_t each = sizeof(T) * arrays * stride;
    while (each * threads > kSharedBytes) threads /= 2;
    bytes = each * threads;
    blocks = (elements + threads - 1) / threads;
  }
};

// The arrays of a block.
template <typename T>
class BlockRows {
 public:
  // Shared memory of RowPlan::bytes.
  __device__ explicit BlockRows(T* memory, int stride, int64_t elements)
      : memory_(memory),
        stride_(stride),
        first_(static_cast<int64_t>(blockIdx.x) * blockDim.x),
        count_(static_cast<int>(least(elements - first_, blockDim.x))) {}

  // The element of this thread. Threads beyond the last element work on that one again.
  __device__ int64_t index() const { return first_ + least(threadIdx.x, count_ - 1); }
  __device__ bool is_last_one_again() const { return static_cast<int>(threadIdx.x) >= count_; }

  // This thread's row.
  __device__ T* own(int array) const { return row(array, threadIdx.x); }

  // As many doubles for this thread, in the place of arrays from `array` on: of one of doubles, of
  // two of floats. Blocks have an even number of threads, which aligns them.
  __device__ double* own_doubles(int array) const {
    return reinterpret_cast<double*>(memory_ + array * static_cast<int>(blockDim.x) * stride_) +
           threadIdx.x * stride_;
  }

  // Fills the first arrays from `n` operands of rows `widths` long. Every thread calls this.
  template <int n>
  __device__ void load(const Operand* const (&operands)[n], const int (&widths)[n],
                       const DeviceShape& shape) const {
    static_assert(n <= kMostRowOperands, "");
    __shared__ int64_t offsets[kMostRowOperands][kMostRowThreads];
    for (int i = 0; i < n; ++i) {
      offsets[i][threadIdx.x] = offset_at(index(), operands[i]->strides, shape);
    }
    __syncthreads();
    for (int i = 0; i < n; ++i) {
      const T* data = static_cast<const T*>(operands[i]->data);
      for_each_number(widths[i], blockDim.x,
                      [&](int r, int c, int) { row(i, r)[c] = data[offsets[i][r] + c]; });
    }
    __syncthreads();
  }

  // Writes an array to contiguous rows. Every thread calls this, after a __syncthreads().
  __device__ void store(int array, int width, void* out) const {
    if (out == nullptr) return;
    T* data = static_cast<T*>(out) + first_ * width;
    for_each_number(width, count_, [&](int r, int c, int i) { data[i] = row(array, r)[c]; });
  }

 private:
  __device__ T* row(int array, int r) const {
    return memory_ + (array * static_cast<int>(blockDim.x) + r) * stride_;
  }

  // f(row, column, which of all) for this thread's share of the numbers of `rows` rows.
  template <typename F>
  __device__ static void for_each_number(int width, int rows, const F& f) {
    if (width == 0) return;
    const int step = blockDim.x, down = step / width, right = step % width;
    int r = threadIdx.x / width, c = threadIdx.x % width;
    for (int i = threadIdx.x; i < rows * width; i += step) {
      f(r, c, i);
      r += down;
      c += right;
      if (c >= width) {
        c -= width;
        ++r;
      }
    }
  }

  T* memory_;
  const int stride_;
  const int64_t first_;
  const int count_;
};

}  // namespace
}  // namespace bsl
