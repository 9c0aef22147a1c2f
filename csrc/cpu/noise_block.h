// Blocks of the noise of core/noise.h.
//
// Random words are made in the 64-bit lanes of vector registers. A multiplication of 32-bit halves
// (pmuludq, part of SSE2) ignores the upper halves, so Philox can leave rubbish in them. A round is
// then two multiplications, two shifts and some xors. Compilers do not find this by themselves.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/noise.h"
#include "core/philox.h"
#include "core/platform.h"
#include "cpu/block.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace bsl {
namespace {
namespace noise {

#if defined(__SSE2__)

#if defined(__AVX512F__)
using Lanes = uint64_t __attribute__((vector_size(64)));
BSL_HD Lanes multiply_low_halves(Lanes a, Lanes b) {
  // GCC 12 warns of an undefined operand inside _mm512_mul_epu32.
  return (Lanes)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
}
BSL_HD Lanes interleave_low(Lanes a, Lanes b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
BSL_HD Lanes interleave_high(Lanes a, Lanes b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#elif defined(__AVX2__)
using Lanes = uint64_t __attribute__((vector_size(32)));
BSL_HD Lanes multiply_low_halves(Lanes a, Lanes b) {
  return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
BSL_HD Lanes interleave_low(Lanes a, Lanes b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
BSL_HD Lanes interleave_high(Lanes a, Lanes b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#else
using Lanes = uint64_t __attribute__((vector_size(16)));
BSL_HD Lanes multiply_low_halves(Lanes a, Lanes b) {
  return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
}
BSL_HD Lanes interleave_low(Lanes a, Lanes b) { return __builtin_shufflevector(a, b, 0, 2); }
BSL_HD Lanes interleave_high(Lanes a, Lanes b) { return __builtin_shufflevector(a, b, 1, 3); }
#endif

constexpr int kLanes = sizeof(Lanes) / sizeof(uint64_t);

// One counter per lane. The upper 32 bits of a lane have no meaning.
struct Counters {
  Lanes c0, c1, c2, c3;

  BSL_HD void start(uint64_t stream, uint64_t index) {
    for (int lane = 0; lane < kLanes; ++lane) c0[lane] = lane;
    c0 += index;
    c1 = c0 >> 32;
    c2 = Lanes{} + stream;
    c3 = Lanes{} + (stream >> 32);
  }

  BSL_HD void step(uint32_t key0, uint32_t key1) {
    const Lanes p0 = multiply_low_halves(c0, Lanes{} + philox::kMultiplier0);
    const Lanes p1 = multiply_low_halves(c2, Lanes{} + philox::kMultiplier1);
    c0 = (p1 >> 32) ^ c1 ^ key0;
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ key1;
    c3 = p0;
  }

  BSL_HD void store(uint32_t* words) const {
    const Lanes first = (c0 & 0xffffffffu) | (c1 << 32);
    const Lanes second = (c2 & 0xffffffffu) | (c3 << 32);
    const Lanes in_order[2] = {interleave_low(first, second), interleave_high(first, second)};
    memcpy(words, in_order, sizeof(in_order));
  }
};

// The number of vectors of counters that are computed at once, as many as the registers hold. While
// one waits for its multiplications, the others go on.
template <int N>
struct Flight {
  Counters counters = {};
  Flight<N - 1> rest;

  BSL_HD void start(uint64_t stream, uint64_t index) {
    counters.start(stream, index);
    rest.start(stream, index + kLanes);
  }
  BSL_HD void step(uint32_t key0, uint32_t key1) {
    counters.step(key0, key1);
    rest.step(key0, key1);
  }
  BSL_HD void store(uint32_t* words) const {
    counters.store(words);
    rest.store(words + 4 * kLanes);
  }
};
template <>
struct Flight<0> {
  BSL_HD void start(uint64_t, uint64_t) {}
  BSL_HD void step(uint32_t, uint32_t) {}
  BSL_HD void store(uint32_t*) const {}
};

// The words of counters [index, index + n), in the order of memory. Whole flights of them are
// written, up to N counters.
template <int N>
BSL_HD void random_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t* words,
                         int n = N) {
  constexpr int n_vectors = kLanes == 8 ? 4 : 2;
  static_assert(N % (n_vectors * kLanes) == 0, "whole vectors");
  for (int i = 0; i < n; i += n_vectors * kLanes) {
    Flight<n_vectors> flight;
    flight.start(stream, index + i);
    uint32_t key0 = philox::low(seed), key1 = philox::high(seed);
    for (int round = 0; round < philox::kRounds; ++round) {
      flight.step(key0, key1);
      key0 += philox::kKeyStep0;
      key1 += philox::kKeyStep1;
    }
    flight.store(words + 4 * i);
  }
}

#else

template <int N>
BSL_HD void random_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t* __restrict words,
                         int n = N) {
  for (int i = 0; i < n; ++i) {
    uint32_t* w = words + 4 * i;
    random_words(seed, stream, index + i, w[0], w[1], w[2], w[3]);
  }
}

#endif

// The number of elements that are computed together. A float takes one word, a double two.
constexpr int kGroup = 32;

BSL_HD void normal_group(const uint32_t* __restrict words, float* __restrict out) {
  for (int i = 0; i < kGroup; i += 2) normal_pair(words[i], words[i + 1], out[i], out[i + 1]);
}
BSL_HD void normal_group(const uint32_t* __restrict words, double* __restrict out) {
  uint64_t joined[kGroup];
  memcpy(joined, words, sizeof(joined));
  for (int i = 0; i < kGroup; i += 2) normal_pair(joined[i], joined[i + 1], out[i], out[i + 1]);
}

BSL_HD void uniform_group(const uint32_t* __restrict words, float* __restrict out) {
  for (int i = 0; i < kGroup; ++i) out[i] = uniform<float>(words[i]);
}
BSL_HD void uniform_group(const uint32_t* __restrict words, double* __restrict out) {
  uint64_t joined[kGroup];
  memcpy(joined, words, sizeof(joined));
  for (int i = 0; i < kGroup; ++i) out[i] = uniform<double>(joined[i]);
}

// Fills `buffer`, beginning with the counter of element `first`, by calling f(words, out) for each
// group. Returns the address of element `first`.
template <typename T, typename F>
inline const T* for_each_group(uint64_t seed, uint64_t stream, uint64_t first, T* buffer,
                               const F& f) {
  constexpr int per_counter = kPerCounter<T>;
  constexpr int counters = kBlock / per_counter;
  constexpr int words_per_element = 4 / per_counter;
  const uint64_t index = first / per_counter;
  const int skipped = static_cast<int>(first % per_counter);
  alignas(64) uint32_t words[words_per_element * (kBlock + kGroup)];
  alignas(64) T rest[kGroup];
  random_block<counters>(seed, stream, index, words);
  if (skipped != 0) {
    uint32_t* last = words + 4 * counters;
    memset(last, 0, sizeof(uint32_t) * words_per_element * kGroup);
    random_words(seed, stream, index + counters, last[0], last[1], last[2], last[3]);
  }
  // A block may share its last counter with the next block. This counter goes through the same code
  // as all others: scalar code might round differently, and noise must not depend on the alignment
  // of blocks.
  for (int i = 0; i < kBlock + (skipped != 0); i += kGroup) {
    f(words + words_per_element * i, i < kBlock ? buffer + i : rest);
  }
  if (skipped != 0) {
    for (int i = 0; i < per_counter; ++i) buffer[kBlock + i] = rest[i];
  }
  return buffer + skipped;
}

}  // namespace noise

// The size in elements of a buffer for a block of noise.
constexpr int kNoiseBuffer = kBlock + 8;

// The standard normals of the logical elements [first, first + kBlock), somewhere in `buffer`.
template <typename T>
inline const T* normal_block(uint64_t seed, uint64_t stream, uint64_t first, T* buffer) {
  return noise::for_each_group(seed, stream, first, buffer, [](const uint32_t* words, T* out) {
    noise::normal_group(words, out);
  });
}

// Those of [first, first + count), with `first` at the beginning of a counter.
template <typename T>
inline const T* normal_block(uint64_t seed, uint64_t stream, uint64_t first, T* buffer, int count) {
  constexpr int per_counter = noise::kPerCounter<T>;
  constexpr int words_per_element = 4 / per_counter;
  alignas(64) uint32_t words[words_per_element * kBlock];
  const int whole = (count + noise::kGroup - 1) / noise::kGroup * noise::kGroup;
  noise::random_block<kBlock / per_counter>(seed, stream, first / per_counter, words,
                                            whole / per_counter);
  for (int i = 0; i < count; i += noise::kGroup) {
    noise::normal_group(words + words_per_element * i, buffer + i);
  }
  return buffer;
}

// The uniforms in (0, 1) of the logical elements [first, first + kBlock), somewhere in `buffer`.
template <typename T>
inline const T* uniform_block(uint64_t seed, uint64_t stream, uint64_t first, T* buffer) {
  return noise::for_each_group(seed, stream, first, buffer, [](const uint32_t* words, T* out) {
    noise::uniform_group(words, out);
  });
}

}  // namespace
}  // namespace bsl
