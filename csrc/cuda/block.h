// Reading, drawing, writing and the sums of a warp, for all CUDA kernels.
//
// A thread takes groups of elements. A group is 16 bytes of T, and the output of one counter of the
// random number generator. Groups begin at multiples of their size, even if a thread needs only
// part of one.
#pragma once

#include <cuda_runtime_api.h>

#include "core/layout.h"
#include "core/low_precision.h"
#include "core/noise.h"
#include "core/philox.h"
#include "cuda/shape.h"

namespace bsl {
namespace {

// Elements of a group.
template <typename T>
constexpr int kGroup = noise::kPerCounter<T>;
constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 20;

template <typename T>
struct alignas(16) Group {
  T at[kGroup<T>];
};

// A group in its type of storage.
template <typename T, typename Stored>
struct alignas(sizeof(Stored) * kGroup<T>) Packed {
  Stored at[kGroup<T>];
};

__device__ __forceinline__ float loaded(float x) { return x; }
__device__ __forceinline__ double loaded(double x) { return x; }
__device__ __forceinline__ float loaded(BFloat16 x) { return x.to_float(); }
__device__ __forceinline__ float loaded(Half x) { return x.to_float(); }

__device__ __forceinline__ void store(float x, float& out) { out = x; }
__device__ __forceinline__ void store(double x, double& out) { out = x; }
__device__ __forceinline__ void store(float x, BFloat16& out) { out = BFloat16::from(x); }
__device__ __forceinline__ void store(float x, Half& out) { out = Half::from(x); }

// The part [from, to) of a group that begins at element `start`.
struct Part {
  int64_t start;
  int from, to;

  template <typename T>
  __device__ __forceinline__ bool is_whole(const void* data, size_t alignment) const {
    return from == 0 && to == kGroup<T> &&
           (reinterpret_cast<uintptr_t>(data) & (alignment - 1)) == 0;
  }
};

__device__ __forceinline__ uint64_t quotient(uint64_t n, const Divider& size) {
  return __umul64hi(n, size.multiplier) >> size.shift;
}

// The offset of element `index`.
__device__ __forceinline__ int64_t offset_at(int64_t index, const int64_t* strides,
                                             const DeviceShape& shape) {
  uint64_t rest = static_cast<uint64_t>(index);
  int64_t offset = 0;
#pragma unroll 1
  for (int d = shape.ndim - 1; d > 0; --d) {
    const uint64_t above = quotient(rest, shape.dividers[d]);
    offset += static_cast<int64_t>(rest - above * shape.sizes[d]) * strides[d];
    rest = above;
  }
  return offset + static_cast<int64_t>(rest) * strides[0];
}

// One element.
template <typename T>
__device__ __forceinline__ T element(const Operand& operand, const DeviceShape& shape,
                                     int64_t index) {
  const T* data = static_cast<const T*>(operand.data);
  if (operand.kind == Operand::Kind::contiguous) return data[index];
  if (operand.kind != Operand::Kind::strided) return static_cast<T>(operand.value);
  return data[offset_at(index, operand.strides, shape)];
}

template <typename T, typename Stored>
__device__ __forceinline__ Group<T> read_whole(const Stored* data) {
  const auto packed = *reinterpret_cast<const Packed<T, Stored>*>(data);
  Group<T> group;
  for (int j = 0; j < kGroup<T>; ++j) group.at[j] = loaded(packed.at[j]);
  return group;
}

// Reads a whole group of an operand that has_whole_groups.
template <typename T, typename Stored>
__device__ __forceinline__ Group<T> read_whole(const Operand& operand, const DeviceShape& shape,
                                               int64_t start) {
  const Stored* data = static_cast<const Stored*>(operand.data);
  if (operand.kind == Operand::Kind::contiguous) return read_whole<T>(data + start);
  Group<T> group;
  if (operand.kind == Operand::Kind::strided) {
    const int64_t step = operand.strides[shape.ndim - 1];
    data += offset_at(start, operand.strides, shape);
    if (step == 1) return read_whole<T>(data);
    for (int j = 0; j < kGroup<T>; ++j) group.at[j] = loaded(data[j * step]);
  } else {
    for (int j = 0; j < kGroup<T>; ++j) group.at[j] = static_cast<T>(operand.value);
  }
  return group;
}

// Reads part of a group. The elements outside the part are arbitrary numbers.
template <typename T, typename Stored>
__device__ __forceinline__ Group<T> read(const Stored* data, Part part) {
  data += part.start;
  if (part.is_whole<T>(data, sizeof(Packed<T, Stored>))) return read_whole<T>(data);
  Group<T> group;
  for (int j = 0; j < kGroup<T>; ++j) {
    group.at[j] = j >= part.from && j < part.to ? loaded(data[j]) : T(0);
  }
  return group;
}

// Reads part of a group of a strided operand.
template <typename T, typename Stored>
__device__ __forceinline__ Group<T> gather(const Stored* data, const int64_t* strides,
                                           const DeviceShape& shape, Part part) {
  Group<T> group = {};
  if (shape.has_whole_groups) {
    const int64_t step = strides[shape.ndim - 1];
    data += offset_at(part.start, strides, shape);
    if (step == 1) return read<T>(data - part.start, part);
    for (int j = 0; j < kGroup<T>; ++j) group.at[j] = loaded(data[j * step]);
    return group;
  }
#pragma unroll 1
  for (int j = part.from; j < part.to; ++j) {
    const T x = loaded(data[offset_at(part.start + j, strides, shape)]);
    for (int k = 0; k < kGroup<T>; ++k) group.at[k] = k == j ? x : group.at[k];
  }
  return group;
}

template <typename T, typename Stored>
__device__ __forceinline__ Group<T> read(const Operand& operand, const DeviceShape& shape,
                                         Part part) {
  const Stored* data = static_cast<const Stored*>(operand.data);
  if (operand.kind == Operand::Kind::contiguous) return read<T, Stored>(data, part);
  if (operand.kind == Operand::Kind::strided) return gather<T>(data, operand.strides, shape, part);
  Group<T> group;
  for (int j = 0; j < kGroup<T>; ++j) group.at[j] = static_cast<T>(operand.value);
  return group;
}

// Writes one element, unless `out` is null.
template <typename T>
__device__ __forceinline__ void write_element(void* out, int64_t index, T value) {
  if (out != nullptr) static_cast<T*>(out)[index] = value;
}

template <typename T, typename Stored>
__device__ __forceinline__ void write_whole(const Group<T>& group, Stored* data) {
  Packed<T, Stored> packed;
  for (int j = 0; j < kGroup<T>; ++j) store(group.at[j], packed.at[j]);
  *reinterpret_cast<Packed<T, Stored>*>(data) = packed;
}

template <typename T, typename Stored>
__device__ __forceinline__ void write(const Group<T>& group, Stored* data, Part part) {
  data += part.start;
  if (part.is_whole<T>(data, sizeof(Packed<T, Stored>))) {
    write_whole(group, data);
  } else {
    for (int j = 0; j < kGroup<T>; ++j) {
      if (j >= part.from && j < part.to) store(group.at[j], data[j]);
    }
  }
}

// The group of a stream's numbers that begins with `first`.
template <bool Normal, typename T>
__device__ __forceinline__ Group<T> draw(uint64_t seed, uint64_t stream, uint64_t first) {
  uint32_t words[4];
  random_words(seed, stream, first / kGroup<T>, words[0], words[1], words[2], words[3]);
  Group<T> group;
  if constexpr (Normal) {
    noise::normals(words, group.at);
  } else {
    noise::uniforms(words, group.at);
  }
  return group;
}

__device__ __forceinline__ int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls f(part) for the groups of the elements [begin, end) that thread `rank` of `size` threads
// takes. Every call gives a thread the same groups.
template <typename T, typename F>
__device__ __forceinline__ void for_each_part(int64_t begin, int64_t end, int64_t rank,
                                              int64_t size, const F& f) {
  constexpr int n = kGroup<T>;
#pragma unroll 1
  for (int64_t group = begin / n + rank; group * n < end; group += size) {
    const int64_t start = group * n;
    f(Part{start, start < begin ? static_cast<int>(begin - start) : 0,
           static_cast<int>(least(end - start, n))});
  }
}

// Shares units of work among teams of neighbouring threads. A team has `size` threads: 1, 2, 4, ...
// up to a block. lane() is this thread's number in its team. The team takes the units first(),
// first() + step(), and so on. Sizes have 32 bits, because divisions of 64 bits are slow.
struct Share {
  unsigned size, per_block;

  __device__ explicit Share(int n) : size(n), per_block(kThreads / size) {}

  __device__ int lane() const { return static_cast<int>(threadIdx.x % size); }
  __device__ int64_t first() const {
    return static_cast<int64_t>(blockIdx.x) * per_block + threadIdx.x / size;
  }
  __device__ int64_t step() const { return static_cast<int64_t>(gridDim.x) * per_block; }
};

// Combines the values of neighbouring lanes of a warp (1, 2, 4, ..., 32 of them) in an order that
// depends only on their number. All lanes get the result. f is commutative.
template <typename V, typename F>
__device__ __forceinline__ V combined_lanes(V value, int lanes, const F& f) {
  if (lanes > 1) {
    const unsigned first = threadIdx.x % 32 / lanes * lanes;
    const unsigned mask = (0xffffffffu >> (32 - lanes)) << first;
    for (int half = lanes / 2; half > 0; half /= 2) {
      value = f(value, __shfl_xor_sync(mask, value, half));
    }
  }
  return value;
}

inline unsigned blocks(int64_t threads) {
  const int64_t wanted = (threads + kThreads - 1) / kThreads;
  return static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks);
}

}  // namespace
}  // namespace bsl
