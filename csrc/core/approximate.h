// The GPU's approximations of a reciprocal root and a reciprocal. Their errors are about one ulp.
// Tests that run CUDA kernels on the CPU have another file in place of this one.
#pragma once

namespace bsl {
namespace {

__device__ __forceinline__ float approximate_rsqrt(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float approximate_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace
}  // namespace bsl
