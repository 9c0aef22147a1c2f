// Philox4x32-10: the counter-based random number generator of Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3" (2011, doi:10.1145/2063384.2063405).
//
// A counter has its index in words 0 (low) and 1 (high), and the stream in words 2 and 3. The key
// is the seed, low word first.
#pragma once

#include <cstdint>

#include "core/platform.h"

namespace bsl {
namespace {
namespace philox {

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kKeyStep0 = 0x9E3779B9u, kKeyStep1 = 0xBB67AE85u;
constexpr int kRounds = 10;

BSL_HD uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
BSL_HD uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

struct Product {
  uint32_t low, high;
};

BSL_HD Product product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  // One instruction for the upper half. For a 64-bit product nvcc would add one that adds 0 to it.
  return {a * b, __umulhi(a, b)};
#else
  const uint64_t p = uint64_t{a} * b;
  return {low(p), high(p)};
#endif
}

}  // namespace philox

// Turns a counter into four random words.
BSL_HD void philox4x32(uint32_t& c0, uint32_t& c1, uint32_t& c2, uint32_t& c3, uint32_t key0,
                       uint32_t key1) {
  using namespace philox;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int round = 0; round < kRounds; ++round) {
    const Product p0 = product(kMultiplier0, c0);
    const Product p1 = product(kMultiplier1, c2);
    c0 = p1.high ^ c1 ^ key0;
    c1 = p1.low;
    c2 = p0.high ^ c3 ^ key1;
    c3 = p0.low;
    key0 += kKeyStep0;
    key1 += kKeyStep1;
  }
}

// The words of counter `index` of `stream`.
BSL_HD void random_words(uint64_t seed, uint64_t stream, uint64_t index, uint32_t& w0, uint32_t& w1,
                         uint32_t& w2, uint32_t& w3) {
  using namespace philox;
  w0 = low(index);
  w1 = high(index);
  w2 = low(stream);
  w3 = high(stream);
  philox4x32(w0, w1, w2, w3, low(seed), high(seed));
}

}  // namespace
}  // namespace bsl
