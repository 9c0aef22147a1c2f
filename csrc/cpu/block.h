// Blocks: how kernels walk over operands of any strides with loops that the compiler vectorises.
//
// A kernel loops over blocks of kBlock logical elements. Reader hands it each operand's block as a
// plain array: in place where the operand is contiguous, gathered into a buffer where it is not.
// Blocks are always kBlock long for the kernel; the last one is padded with copies of real
// elements, so that no loop needs a scalar remainder, whose rounding could differ.
#pragma once

#include <cstdint>

#include "core/platform.h"
#include "cpu/layout.h"

namespace bsl {
namespace {

template <typename F>
inline void for_each_block(int64_t begin, int64_t end, const F& f) {
  for (int64_t start = begin; start < end; start += kBlock) {
    f(start, static_cast<int>(end - start < kBlock ? end - start : kBlock));
  }
}

// Asks for the next block of an array. Between the blocks of one array a kernel computes for longer
// than hardware prefetchers remember. Addresses past the end do no harm.
template <bool write, typename T>
inline void prefetch_block(const T* data) {
  const char* bytes = reinterpret_cast<const char*>(data);
  for (int i = 0; i < kBlock * static_cast<int>(sizeof(T)); i += 64) {
    __builtin_prefetch(bytes + i, write);
  }
}

// Where the elements [start, start + length) of a strided operand lie: f(i, take, offset, stride)
// for each run of elements i, ..., i + take - 1 that are `stride` apart, the first one at `offset`.
template <typename F>
inline void for_each_run(const Operand& operand, const Shape& shape, int64_t start, int length,
                         const F& f) {
  if (shape.ndim == 0) {
    f(0, length, int64_t{0}, int64_t{0});
    return;
  }
  const int last = shape.ndim - 1;
  int64_t index[kMaxDims];
  int64_t offset = 0;
  for (int d = last; d >= 0; --d) {
    index[d] = start % shape.sizes[d];
    start /= shape.sizes[d];
    offset += index[d] * operand.strides[d];
  }
  const int64_t stride = operand.strides[last];
  for (int i = 0; i < length;) {
    const int64_t room = shape.sizes[last] - index[last];
    const int take = room < length - i ? static_cast<int>(room) : length - i;
    f(i, take, offset, stride);
    i += take;
    index[last] += take;
    offset += take * stride;
    for (int d = last; d > 0 && index[d] == shape.sizes[d]; --d) {
      offset += operand.strides[d - 1] - index[d] * operand.strides[d];
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

template <typename T>
class Reader {
 public:
  Reader(const Operand& operand, const Shape& shape) : operand_(operand), shape_(shape) {
    if (is_constant()) {
      const T value = operand.kind == Operand::Kind::constant
                          ? static_cast<T>(operand.value)
                          : *static_cast<const T*>(operand.data);
      for (int i = 0; i < kBlock; ++i) buffer_[i] = value;
    }
  }

  bool is_constant() const {
    if (operand_.kind == Operand::Kind::constant) return true;
    if (operand_.kind != Operand::Kind::strided) return false;
    for (int d = 0; d < shape_.ndim; ++d) {
      if (operand_.strides[d] != 0) return false;
    }
    return true;
  }

  // The elements [start, start + length), padded to kBlock.
  const T* block(int64_t start, int length) {
    if (is_constant()) return buffer_;
    const T* data = static_cast<const T*>(operand_.data);
    if (operand_.kind == Operand::Kind::contiguous) {
      if (length == kBlock) {
        prefetch_block<false>(data + start + kBlock);
        return data + start;
      }
      for (int i = 0; i < length; ++i) buffer_[i] = data[start + i];
    } else {
      gather(data, start, length);
    }
    for (int i = length; i < kBlock; ++i) buffer_[i] = buffer_[0];
    return buffer_;
  }

 private:
  void gather(const T* data, int64_t start, int length) {
    for_each_run(operand_, shape_, start, length,
                 [&](int i, int take, int64_t offset, int64_t stride) {
                   if (stride == 1) {
                     for (int j = 0; j < take; ++j) buffer_[i + j] = data[offset + j];
                   } else if (stride == 0) {
                     for (int j = 0; j < take; ++j) buffer_[i + j] = data[offset];
                   } else {
                     for (int j = 0; j < take; ++j) buffer_[i + j] = data[offset + j * stride];
                   }
                 });
  }

  alignas(64) T buffer_[kBlock];
  const Operand& operand_;
  const Shape& shape_;
};

// Rows of contiguous numbers, one for each logical element: where each row of a block begins.
template <typename T>
class RowReader {
 public:
  RowReader(const Operand& operand, const Shape& shape) : operand_(operand), shape_(shape) {}

  // Of the elements [start, start + length), padded to kBlock.
  const T* const* block(int64_t start, int length) {
    const T* data = static_cast<const T*>(operand_.data);
    for_each_run(operand_, shape_, start, length,
                 [&](int i, int take, int64_t offset, int64_t stride) {
                   for (int j = 0; j < take; ++j) rows_[i + j] = data + offset + j * stride;
                 });
    for (int i = length; i < kBlock; ++i) rows_[i] = rows_[0];
    return rows_;
  }

 private:
  const T* rows_[kBlock];
  const Operand& operand_;
  const Shape& shape_;
};

// Contiguous output, or none. store() copies a block; or the kernel writes kBlock elements to
// block(), and commit() stores the real ones.
template <typename T>
class Writer {
 public:
  explicit Writer(T* data) : data_(data) {}

  explicit operator bool() const { return data_ != nullptr; }

  void store(const T* values, int64_t start, int length) {
    if (data_ == nullptr) return;
    T* out = block(start, length);
    for (int i = 0; i < kBlock; ++i) out[i] = values[i];
    commit(start, length);
  }

  T* block(int64_t start, int length) {
    if (length != kBlock) return buffer_;
    prefetch_block<true>(data_ + start + kBlock);
    return data_ + start;
  }

  void commit(int64_t start, int length) {
    if (length == kBlock) return;
    for (int i = 0; i < length; ++i) data_[start + i] = buffer_[i];
  }

 private:
  alignas(64) T buffer_[kBlock];
  T* data_;
};

// Sums of a block's elements: lanes in T over at most kBlock elements, then in double.
template <typename T>
inline double sum(const T* values, int n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < n; ++i) total += values[i];
  return static_cast<double>(total);
}

// Takes one value per element, block by block within one chunk, and stores them (Reduction::none)
// or their sums over segments.
template <typename T>
class Reducer {
 public:
  Reducer(const ChunkPlan& plan, Reduction reduction, int64_t chunk, T* out, double* partials)
      : plan_(plan),
        none_(reduction == Reduction::none),
        out_(out),
        partial_(partials == nullptr ? nullptr : partials + chunk),
        segment_(plan.begin(chunk) / plan.segment) {}

  explicit operator bool() const { return out_ != nullptr; }

  // `values` may be scribbled over by the caller afterwards.
  void add(const T* values, int64_t start, int length) {
    if (none_) {
      for (int i = 0; i < length; ++i) out_[start + i] = values[i];
      return;
    }
    if (partial_ != nullptr) {
      total_ += sum(values, length);
      *partial_ = total_;
      return;
    }
    for (int i = 0; i < length;) {
      const int64_t room = plan_.segment - taken_;
      const int take = room < length - i ? static_cast<int>(room) : length - i;
      total_ += sum(values + i, take);
      taken_ += take;
      i += take;
      if (taken_ == plan_.segment) {
        out_[segment_++] = static_cast<T>(total_);
        total_ = 0;
        taken_ = 0;
      }
    }
  }

 private:
  const ChunkPlan& plan_;
  const bool none_;
  T* out_;
  double* partial_;
  int64_t segment_;
  int64_t taken_ = 0;
  double total_ = 0;
};

// Adds up the partial sums of segments that span several chunks.
template <typename T>
inline void combine_partials(const ChunkPlan& plan, const double* partials, T* out) {
  if (plan.chunks_per_segment == 1) return;
  for (int64_t segment = 0; segment * plan.segment < plan.numel; ++segment) {
    double total = 0;
    for (int64_t i = 0; i < plan.chunks_per_segment; ++i) {
      total += partials[segment * plan.chunks_per_segment + i];
    }
    out[segment] = static_cast<T>(total);
  }
}

}  // namespace
}  // namespace bsl
