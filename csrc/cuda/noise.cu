#include "cuda/noise.h"

#include "cuda/block.h"

namespace bsl {
namespace {

template <bool kNormal, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads) noise_kernel(const __grid_constant__ NoiseCall a) {
  const uint64_t seed = static_cast<uint64_t>(*a.seed);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for_each_part<T>(0, a.n, thread, threads, [&](Part part) {
    write(draw<kNormal, T>(seed, a.stream, static_cast<uint64_t>(part.start)),
          static_cast<Stored*>(a.out), part);
  });
}

template <bool kNormal, typename T, typename Stored>
void launch(const NoiseCall& a, cudaStream_t stream) {
  noise_kernel<kNormal, T, Stored>
      <<<blocks((a.n + kGroup<T> - 1) / kGroup<T>), kThreads, 0, stream>>>(a);
}

}  // namespace

namespace BSL_ISA {
extern NoiseKernels uniform_kernels = {launch<false, float, float>, launch<false, double, double>,
                                       launch<false, float, BFloat16>, launch<false, float, Half>};
extern NoiseKernels normal_kernels = {launch<true, float, float>, launch<true, double, double>,
                                      launch<true, float, BFloat16>, launch<true, float, Half>};
}  // namespace BSL_ISA
}  // namespace bsl
