// Blocks of operands with any strides, over which kernels have loops that compilers vectorise.
//
// A kernel loops over blocks of kBlock logical elements. Reader hands it each operand's block as a
// plain array: in place if the operand is contiguous, else gathered into a buffer. Blocks are
// always kBlock long for the kernel. The last one is padded with copies of real elements, so that
// no loop needs a scalar remainder, whose rounding could differ.
#pragma once

#include <cstdint>

#include "core/low_precision.h"
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

// Asks for the next block of an array. Hardware prefetchers forget the array while a kernel
// computes with a block. Addresses past the end do no harm.
template <bool write, typename T>
inline void prefetch_block(const T* data) {
  const char* bytes = reinterpret_cast<const char*>(data);
  for (int i = 0; i < kBlock * static_cast<int>(sizeof(T)); i += 64) {
    __builtin_prefetch(bytes + i, write);
  }
}

// Finds the elements [start, start + length) of a strided operand. Calls f(i, take, offset, stride)
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

// Calls f with a zero of the type in which a tensor of T is stored.
template <typename T, typename F>
inline void with_stored_type(Storage storage, const F& f) {
  switch (storage) {
    case Storage::native:
      return f(T{});
    case Storage::bfloat16:
      return f(BFloat16{});
    case Storage::half:
      return f(Half{});
  }
}

template <typename T>
BSL_HD T loaded(T stored) {
  return stored;
}
template <typename T>
BSL_HD T loaded(BFloat16 stored) {
  return static_cast<T>(stored.to_float());
}
template <typename T>
BSL_HD T loaded(Half stored) {
  return static_cast<T>(stored.to_float());
}

template <typename T>
BSL_HD void store(T value, T& stored) {
  stored = value;
}
template <typename T>
BSL_HD void store(T value, BFloat16& stored) {
  stored = BFloat16::from(static_cast<float>(value));
}
template <typename T>
BSL_HD void store(T value, Half& stored) {
  stored = Half::from(static_cast<float>(value));
}

template <typename T>
class Reader {
 public:
  Reader(const Operand& operand, const Shape& shape)
      : operand_(operand), shape_(shape), constant_(has_one_number()) {
    if (!constant_) return;
    if (operand.kind == Operand::Kind::constant) {
      buffer_[0] = static_cast<T>(operand.value);
    } else {
      read(0, 1);
    }
    for (int i = 1; i < kBlock; ++i) buffer_[i] = buffer_[0];
  }

  // The elements [start, start + length), padded to kBlock.
  const T* block(int64_t start, int length) {
    if (constant_) return buffer_;
    if (operand_.kind == Operand::Kind::contiguous && operand_.storage == Storage::native &&
        length == kBlock) {
      const T* data = static_cast<const T*>(operand_.data);
      prefetch_block<false>(data + start + kBlock);
      return data + start;
    }
    read(start, length);
    for (int i = length; i < kBlock; ++i) buffer_[i] = buffer_[0];
    return buffer_;
  }

 private:
  bool has_one_number() const {
    if (operand_.kind == Operand::Kind::constant) return true;
    if (operand_.kind != Operand::Kind::strided) return false;
    for (int d = 0; d < shape_.ndim; ++d) {
      if (operand_.strides[d] != 0) return false;
    }
    return true;
  }

  void read(int64_t start, int length) {
    with_stored_type<T>(operand_.storage, [&](auto stored) {
      const auto* data = static_cast<const decltype(stored)*>(operand_.data);
      if (operand_.kind == Operand::Kind::contiguous) {
        prefetch_block<false>(data + start + kBlock);
        for (int i = 0; i < length; ++i) buffer_[i] = loaded<T>(data[start + i]);
      } else {
        gather(data, start, length);
      }
    });
  }

  template <typename S>
  void gather(const S* data, int64_t start, int length) {
    for_each_run(operand_, shape_, start, length,
                 [&](int i, int take, int64_t offset, int64_t stride) {
                   if (stride == 1) {
                     for (int j = 0; j < take; ++j) buffer_[i + j] = loaded<T>(data[offset + j]);
                   } else if (stride == 0) {
                     const T value = loaded<T>(data[offset]);
                     for (int j = 0; j < take; ++j) buffer_[i + j] = value;
                   } else {
                     for (int j = 0; j < take; ++j) {
                       buffer_[i + j] = loaded<T>(data[offset + j * stride]);
                     }
                   }
                 });
  }

  alignas(64) T buffer_[kBlock];
  const Operand& operand_;
  const Shape& shape_;
  const bool constant_;
};

// Finds rows of contiguous numbers, one for each logical element.
template <typename T>
class RowReader {
 public:
  RowReader(const Operand& operand, const Shape& shape) : operand_(operand), shape_(shape) {}

  // The addresses of the rows of elements [start, start + length), padded to kBlock.
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

// Writes contiguous output, or nothing if there is none. store() copies a block. Without that copy,
// a kernel writes kBlock elements to block(), and commit() stores the real ones.
template <typename T>
class Writer {
 public:
  explicit Writer(void* data, Storage storage = Storage::native) : data_(data), storage_(storage) {}
  explicit Writer(const Grad& grad) : Writer(grad.data, grad.storage) {}

  explicit operator bool() const { return data_ != nullptr; }

  void store(const T* values, int64_t start, int length) {
    if (data_ == nullptr) return;
    T* out = block(start, length);
    for (int i = 0; i < kBlock; ++i) out[i] = values[i];
    commit(start, length);
  }

  T* block(int64_t start, int length) {
    if (length != kBlock || storage_ != Storage::native) return buffer_;
    T* data = static_cast<T*>(data_);
    prefetch_block<true>(data + start + kBlock);
    return data + start;
  }

  void commit(int64_t start, int length) {
    if (length == kBlock && storage_ == Storage::native) return;
    with_stored_type<T>(storage_, [&](auto stored) {
      auto* data = static_cast<decltype(stored)*>(data_);
      for (int i = 0; i < length; ++i) bsl::store(buffer_[i], data[start + i]);
    });
  }

 private:
  alignas(64) T buffer_[kBlock];
  void* data_;
  const Storage storage_;
};

// The sum of n <= kBlock elements, added up in T and returned as double.
template <typename T>
inline double sum(const T* values, int n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < n; ++i) total += values[i];
  return static_cast<double>(total);
}

// Takes one logarithm per element, block by block within one chunk. It stores them
// (Reduction::none) or their sums over segments. Results are of type T, also in a call on 16-bit
// tensors, as sums soon exceed the range of 16 bits.
template <typename T>
class Reducer {
 public:
  Reducer(const ChunkPlan& plan, Reduction reduction, int64_t chunk, void* out, double* partials)
      : plan_(plan),
        none_(reduction == Reduction::none),
        out_(static_cast<T*>(out)),
        partial_(partials == nullptr ? nullptr : partials + chunk),
        segment_(plan.begin(chunk) / plan.segment) {}

  explicit operator bool() const { return out_ != nullptr; }

  // The caller may overwrite `values` afterwards.
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
inline void combine_partials(const ChunkPlan& plan, const double* partials, void* out) {
  if (plan.chunks_per_segment == 1) return;
  for (int64_t segment = 0; segment * plan.segment < plan.numel; ++segment) {
    double total = 0;
    for (int64_t i = 0; i < plan.chunks_per_segment; ++i) {
      total += partials[segment * plan.chunks_per_segment + i];
    }
    static_cast<T*>(out)[segment] = static_cast<T>(total);
  }
}

}  // namespace
}  // namespace bsl
