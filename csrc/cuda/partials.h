// Adds up the partial sums that blocks leave of longer sums.
#pragma once

#include "cuda/block.h"

namespace bsl {
namespace {

// `sums` has `pieces` partial sums for each segment, one segment after the other.
struct Partials {
  const double* sums;
  int64_t pieces;
  int64_t segments;
  void* out;  // a total for each segment
};

// Each block adds up whole segments.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    combine_partials_kernel(const __grid_constant__ Partials a) {
  __shared__ double sums[kThreads];
  for (int64_t segment = blockIdx.x; segment < a.segments; segment += gridDim.x) {
    double total = 0;
    for (int64_t i = threadIdx.x; i < a.pieces; i += kThreads) {
      total += a.sums[segment * a.pieces + i];
    }
    sums[threadIdx.x] = total;
    for (unsigned half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) static_cast<T*>(a.out)[segment] = static_cast<T>(sums[0]);
    __syncthreads();
  }
}

template <typename T>
void combine_partials(const Partials& a, cudaStream_t stream) {
  combine_partials_kernel<T><<<blocks(a.segments * kThreads), kThreads, 0, stream>>>(a);
}

}  // namespace
}  // namespace bsl
