// The parts of CUDA that csrc/cuda needs to run on a CPU. Each thread of a block is a coroutine,
// and one block runs after the other. This file is included first, by the name of CUDA's own
// header, and with __CUDACC__ and __CUDA_ARCH__ defined.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#define __constant__
#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __host__
#define __launch_bounds__(threads)
#define __noinline__ __attribute__((noinline))
#define __shared__ static

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaSuccess = 0;
inline int cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(int) { return ""; }

struct Index {
  unsigned x, y;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr unsigned kMostThreads = 1024, kWarp = 32;
// Kernels declare up to 3 KB of the 48 KB of shared memory themselves; launches may ask for the
// rest.
constexpr size_t kStack = 128 * 1024, kShared = 45 * 1024;

// A barrier, at which threads wait for each other.
struct Meeting {
  unsigned arrived = 0, times = 0;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done;
};

inline Thread threads[kMostThreads];
inline Meeting all, groups[kMostThreads];
inline uint64_t shuffled[kMostThreads];
inline ucontext_t scheduler;
inline bool waits_in_vain;  // set each round; cleared if a thread meets others or ends
inline const std::function<void()>* body;
alignas(64) inline char shared[kShared];  // the shared memory that a launch asks for

inline void meet(Meeting& meeting, unsigned n) {
  const unsigned times = meeting.times, self = threadIdx.x;
  waits_in_vain = false;
  if (++meeting.arrived == n) {
    meeting.arrived = 0;
    ++meeting.times;
    return;
  }
  while (meeting.times == times) {
    swapcontext(&threads[self].context, &scheduler);
    threadIdx.x = self;
  }
}

inline void run() {
  const unsigned self = threadIdx.x;
  (*body)();
  threads[self].done = true;
  waits_in_vain = false;
  swapcontext(&threads[self].context, &scheduler);
}

inline void launch(unsigned blocks, unsigned n, size_t bytes, const std::function<void()>& kernel) {
  // A device would refuse such a launch.
  if (n == 0 || n > kMostThreads || blocks == 0 || bytes > kShared) abort();
  body = &kernel;
  blockDim.x = n;
  gridDim.x = blocks;
  for (unsigned b = 0; b < blocks; ++b) {
    blockIdx.x = b;
    memset(shared, 0xff, bytes);  // NaN
    all = Meeting();
    waits_in_vain = false;
    for (unsigned t = 0; t < n; ++t) {
      groups[t] = Meeting();
      Thread& thread = threads[t];
      if (!thread.stack) thread.stack.reset(new char[kStack]);
      thread.done = false;
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = kStack;
      makecontext(&thread.context, run, 0);
    }
    // Threads run in rising and in falling order by turns, so that results show a dependence on it.
    bool down = false;
    for (unsigned left = n; left > 0; down = !down) {
      // If a thread returns before a barrier, the others wait there forever: a device might hang.
      if (waits_in_vain) abort();
      waits_in_vain = true;
      for (unsigned i = 0; i < n; ++i) {
        const unsigned t = down ? n - 1 - i : i;
        if (threads[t].done) continue;
        threadIdx.x = t;
        swapcontext(&scheduler, &threads[t].context);
        left -= threads[t].done;
      }
    }
  }
}

}  // namespace emulation

inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}

// In place of the GPU's approximations in csrc/core/approximate.h: an ulp off, to either side.
namespace bsl {
namespace {

inline float off(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof(b));
  return x * (b % 2 == 0 ? 1 + 0x1p-23f : 1 - 0x1p-23f);
}
inline float approximate_rsqrt(float x) { return off(1 / std::sqrt(x)); }
inline float approximate_reciprocal(float x) { return off(1 / x); }

}  // namespace
}  // namespace bsl

inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  using namespace emulation;
  const unsigned t = threadIdx.x, first = t / kWarp * kWarp;
  Meeting& group = groups[first + __builtin_ctz(mask)];
  const unsigned n = __builtin_popcount(mask);
  memcpy(&shuffled[t], &value, sizeof(T));
  meet(group, n);
  T other;
  memcpy(&other, &shuffled[t ^ static_cast<unsigned>(distance)], sizeof(T));
  meet(group, n);
  return other;
}

inline void __syncthreads() { emulation::meet(emulation::all, blockDim.x); }
