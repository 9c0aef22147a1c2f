#include "cpu/noise.h"

#include "cpu/layout.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

// `block(first, buffer)` makes kBlock elements and returns their address.
template <typename T, typename F>
inline void fill(T* out, const NoiseRange& range, const F& block) {
  parallel_chunks((range.n + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t end = range.n < (chunk + 1) * kChunk ? range.n : (chunk + 1) * kChunk;
    alignas(64) T buffer[kNoiseBuffer];
    for (int64_t start = chunk * kChunk; start < end; start += kBlock) {
      const int length = static_cast<int>(end - start < kBlock ? end - start : kBlock);
      const T* made = block(range.first + static_cast<uint64_t>(start), buffer);
      memcpy(out + start, made, sizeof(T) * length);
    }
  });
}

void bits(uint32_t* out, const NoiseRange& range) {
  fill(out, range, [&](uint64_t first, uint32_t* buffer) {
    noise::random_block<kBlock / 4>(range.seed, range.stream, first / 4, buffer);
    uint32_t* last = buffer + kBlock;
    random_words(range.seed, range.stream, first / 4 + kBlock / 4, last[0], last[1], last[2],
                 last[3]);
    return buffer + first % 4;
  });
}

template <typename T>
void uniform(T* out, const NoiseRange& range) {
  fill(out, range, [&](uint64_t first, T* buffer) {
    return uniform_block(range.seed, range.stream, first, buffer);
  });
}

template <typename T>
void normal(T* out, const NoiseRange& range) {
  fill(out, range, [&](uint64_t first, T* buffer) {
    return normal_block(range.seed, range.stream, first, buffer);
  });
}

}  // namespace

namespace BSL_ISA {
extern const NoiseKernels noise_kernels = {bits, uniform<float>, uniform<double>, normal<float>,
                                           normal<double>};
}  // namespace BSL_ISA
}  // namespace bsl
