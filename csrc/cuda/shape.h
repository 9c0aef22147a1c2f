// A call's shape, prepared for kernels that read strided operands.
#pragma once

#include <cassert>

#include "core/layout.h"

namespace bsl {

// Divides an index n of up to 63 bits by a size through multiplication: n / size is the upper half
// of n * multiplier, shifted. For size <= 2^l, multiplier = ceil(2^(63 + l) / size), and
// n * multiplier / 2^(63 + l) exceeds the quotient by less than 2^-l. That is too little to reach
// the next integer. Source: Granlund and Montgomery, "Division by invariant integers using
// multiplication" (1994, doi:10.1145/178243.178249).
struct Divider {
  uint64_t multiplier = 0;
  int shift = 0;  // l - 1

  Divider() = default;
  explicit Divider(int64_t size) {
    assert(size > 1);
    using Wide = unsigned __int128;
    while ((uint64_t{2} << shift) < static_cast<uint64_t>(size)) ++shift;
    multiplier = static_cast<uint64_t>(((Wide{1} << (64 + shift)) + size - 1) / size);
  }
};

struct DeviceShape : Shape {
  Divider dividers[kMaxDims];     // for all sizes except the first; each is 2 or more
  bool has_whole_groups = false;  // the elements of a group differ only in the last index

  DeviceShape() = default;
  DeviceShape(const Shape& shape) : Shape(shape) {
    for (int d = 1; d < ndim; ++d) dividers[d] = Divider(sizes[d]);
    has_whole_groups = ndim > 0 && sizes[ndim - 1] % 4 == 0;
  }
};

// Whether kernels may read every whole group of an operand by one access of `bytes` bytes. If the
// elements of a group do not lie side by side, one offset must serve the group.
inline bool has_whole_groups(const Operand& operand, const DeviceShape& shape, size_t bytes) {
  if (operand.kind != Operand::Kind::contiguous && operand.kind != Operand::Kind::strided) {
    return true;
  }
  bool aligned = reinterpret_cast<uintptr_t>(operand.data) % bytes == 0;
  if (operand.kind == Operand::Kind::contiguous) return aligned;
  if (!shape.has_whole_groups || operand.strides[shape.ndim - 1] != 1) {
    return shape.has_whole_groups;
  }
  for (int d = 0; d < shape.ndim - 1; ++d) aligned = aligned && operand.strides[d] % 4 == 0;
  return aligned;
}

}  // namespace bsl
