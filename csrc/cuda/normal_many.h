// Samples and divergences of up to kMostTensors normal tensors in one launch, for all parameters of
// a model.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bsl {

// All addresses are on the device, and elements are contiguous.
struct NormalTensor {
  const void* loc;
  const void* raw_scale;
  void* sample;  // forward: the sample, null if unwanted; backward: its gradient, or null
  // Only for backward; null if unwanted.
  void* grad_loc;
  void* grad_raw_scale;
  double prior_loc, prior_scale;
  int64_t numel;
  int64_t first_piece;  // number of its first piece among those of all tensors
};

// The table of tensors is an argument of the kernel, and arguments may take 4 KB.
constexpr int kMostTensors = 48;
// Elements of a piece, which one block of threads takes.
constexpr int64_t kNormalPiece = 2048;

struct NormalMany {
  NormalTensor tensors[kMostTensors];
  int n;
  int64_t pieces;       // number of pieces of all tensors
  const int64_t* seed;  // null if no sample is wanted
  uint64_t stream;      // the first tensor's; tensor i has stream + i
  double* partials;     // forward: the divergence of each piece
  const void* grad_kl;  // backward: one number, or null
};

// The arguments of the sum of the partial divergences of all calls.
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
