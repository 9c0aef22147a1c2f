// The ops over rows: see core/rows.h. The .cpp files here say what the kernels of a RowMap are made
// of, and are compiled for every CPU instruction set and for CUDA.
#pragma once

// X(name) for each; kernels are called name_kernels.
#define BSL_ROW_OPS(X) \
  X(planar)            \
  X(radial)
