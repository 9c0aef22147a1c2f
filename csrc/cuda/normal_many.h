// Samples and divergences of many normal tensors, all parameters of a model, say, in one launch.
#pragma once

#include <cstdint>

#include "cuda/kernels.h"

namespace bsl {

// A tensor's elements are contiguous, on the device.
struct NormalTensor {
  const void* loc;
  const void* raw_scale;
  void* sample;  // or null: not wanted; backward: its gradient, or null
  // Backward alone; null: not wanted.
  void* grad_loc;
  void* grad_raw_scale;
  double prior_loc, prior_scale;
  int64_t numel;
  int64_t first_piece;  // of those of the call
};

// A table of them is an argument of the kernel, of which there may be 4 KB.
constexpr int kMostTensors = 48;
// Elements that a block of threads takes.
constexpr int64_t kNormalPiece = 2048;

struct NormalMany {
  NormalTensor tensors[kMostTensors];
  int n;
  int64_t pieces;       // of all tensors
  const int64_t* seed;  // or null, where no sample is wanted
  uint64_t stream;      // of the first tensor; the next one has the next
  double* partials;     // forward: the divergence of each piece
  const void* grad_kl;  // backward: one number, or null
};

// The sum of partial divergences of all calls.
struct NormalTotal {
  const double* partials;
  int64_t pieces;
  void* kl;
};

static_assert(sizeof(NormalMany) <= 4096, "more than a kernel's arguments have room for");

struct NormalManyKernels {
  // For each dtype, in the order of kDTypeNames in bindings/operands.h.
  void (*forward[4])(const NormalMany&, cudaStream_t);
  void (*backward[4])(const NormalMany&, cudaStream_t);
};

namespace cuda {
// In the order of Parametrization.
extern const NormalManyKernels normal_many_kernels[4];
extern void (*const normal_many_total[4])(const NormalTotal&, cudaStream_t);
}  // namespace cuda

}  // namespace bsl
