// The common base of core/ for CPU instruction sets and CUDA.
//
// Everything in core/ lives in anonymous namespaces. The same header is compiled several times with
// different instruction sets. With external linkage the linker would keep a single copy of each
// function, and the AVX-512 one could run on a machine that lacks AVX-512.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define BSL_HD __host__ __device__ __forceinline__
#else
#define BSL_HD inline __attribute__((always_inline))
#endif
