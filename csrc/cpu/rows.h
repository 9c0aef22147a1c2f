// The CPU's kernels of all ops over rows, see core/rows.h.
#pragma once

#include "core/rows.h"
#include "cpu/isa.h"
#include "cpu/layout.h"
#include "rows/ops.h"

namespace bsl {

struct PlannedShape : Shape {
  ChunkPlan plan;

  PlannedShape() = default;
  PlannedShape(const Shape& shape) : Shape(shape) {}
};

using ElementCall = RowCall<PlannedShape>;
using RowForward = RowForwardOf<PlannedShape>;
using RowBackward = RowBackwardOf<PlannedShape>;

template <typename T>
struct ElementTile;

// One variant of an op.
struct RowVariant {
  void (*forward_float)(const RowForward&);
  void (*forward_double)(const RowForward&);
  void (*backward_float)(const RowBackward&);
  void (*backward_double)(const RowBackward&);
  // The tiles of an op of a number and rows of parameters, for programs (cpu/element_tile.h).
  const ElementTile<float>* tile_float;
  const ElementTile<double>* tile_double;
};

constexpr int kMaxRowVariants = 8;

struct RowKernels {
  RowSignature signature;
  int n_variants;
  RowVariant variants[kMaxRowVariants];
  bool (*fits)(const ElementCall&);  // of such an op: whether rows are as long as it needs them
};

#define BSL_DECLARE(name) BSL_DECLARE_KERNELS(RowKernels, name##_kernels)
BSL_ROW_OPS(BSL_DECLARE)
#undef BSL_DECLARE

}  // namespace bsl
