// Kernels see tensors as one logical shape for the whole call, and for each tensor a pointer with
// its strides in that shape (0 where it is broadcast). No tensor is copied to be read.
#pragma once

#include <cstdint>

#include "core/platform.h"

namespace bsl {

// The longest rows of parameters: components of mixtures (and coefficients), bins of splines.
constexpr int kMaxComponents = 64;
constexpr int kMaxBins = 128;

// The most dimensions after merging neighbouring ones that one stride describes.
constexpr int kMaxDims = 8;

// The storage of a tensor's elements: the type that the kernel computes with, or 16 bits.
enum class Storage { native, bfloat16, half };

struct Operand {
  enum class Kind { absent, constant, contiguous, strided };
  Kind kind = Kind::absent;
  Storage storage = Storage::native;
  double value = 0;            // constant
  const void* data = nullptr;  // contiguous, strided
  int64_t strides[kMaxDims] = {};

  BSL_HD explicit operator bool() const { return kind != Kind::absent; }
};

// The memory of a gradient: contiguous, with the call's shape. The gradient of a broadcast tensor
// is summed afterwards. It is therefore stored as native numbers, also in a call on 16-bit tensors.
struct Grad {
  void* data = nullptr;  // null: not wanted
  Storage storage = Storage::native;
};

struct Shape {
  int ndim = 0;
  int64_t sizes[kMaxDims] = {};
  int64_t numel = 1;
};

// What is summed of an op's logarithms, and its names in Python.
enum class Reduction { none, row, sum };
constexpr const char* kReductionNames[] = {"none", "row", "sum"};

}  // namespace bsl
