// What core/ needs to be compiled for a CPU instruction set and for CUDA alike.
//
// Everything in core/ lives in anonymous namespaces. The same header is compiled several times with
// different instruction sets; with external linkage the linker would keep a single copy of each
// function, and the AVX-512 one could end up running on a machine that lacks it.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define BSL_HD __host__ __device__ __forceinline__
#else
#define BSL_HD inline __attribute__((always_inline))
#endif
