// A root and a reciprocal as a GPU approximates them, to an ulp or so. Tests that run kernels on
// the CPU put others in this file's place.
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
