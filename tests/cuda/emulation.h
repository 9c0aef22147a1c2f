// Just enough of CUDA to run csrc/cuda/pointwise_kernels.h on a CPU: a thread for each thread of a
// block, one block after the other. Included first, by the name of CUDA's own header.
#pragma once

#include <barrier>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(threads)
#define __noinline__ __attribute__((noinline))
#define __shared__ static

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaSuccess = 0;
inline int cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(int) { return ""; }

struct Index {
  unsigned x;
};
inline thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr unsigned kThreads = 256, kWarp = 32;

struct Block {
  std::barrier<> all{kThreads};
  std::unique_ptr<std::barrier<>> groups[kThreads];  // those of threads that shuffle together
  double shuffled[kThreads];
};
inline thread_local Block* block;

// `lanes` neighbours at a time exchange numbers.
template <typename Kernel, typename Call>
void launch(Kernel kernel, unsigned blocks, const Call& call, int lanes) {
  for (unsigned b = 0; b < blocks; ++b) {
    Block shared;
    for (auto& group : shared.groups) group = std::make_unique<std::barrier<>>(lanes);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        threadIdx.x = t;
        blockIdx.x = b;
        blockDim.x = kThreads;
        gridDim.x = blocks;
        block = &shared;
        kernel(call);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace emulation

inline double __shfl_xor_sync(unsigned mask, double value, int distance) {
  using namespace emulation;
  const unsigned t = threadIdx.x;
  std::barrier<>& group = *block->groups[t / kWarp * kWarp + __builtin_ctz(mask)];
  block->shuffled[t] = value;
  group.arrive_and_wait();
  const double other = block->shuffled[t ^ static_cast<unsigned>(distance)];
  group.arrive_and_wait();
  return other;
}

inline void __syncthreads() { emulation::block->all.arrive_and_wait(); }
