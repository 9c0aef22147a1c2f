#include "cuda/noise.h"

#include "core/noise.h"
#include "core/philox.h"

namespace bsl::cuda {
namespace {

constexpr int kThreads = 256;

struct Bits {
  using Element = uint32_t;
  static constexpr int per_counter = 4;
  static __device__ void make(const uint32_t (&words)[4], uint32_t (&out)[4]) {
    for (int i = 0; i < 4; ++i) out[i] = words[i];
  }
};

template <typename T>
struct Uniforms {
  using Element = T;
  static constexpr int per_counter = noise::kPerCounter<T>;
  static __device__ void make(const uint32_t (&words)[4], T (&out)[per_counter]) {
    noise::uniforms(words, out);
  }
};

template <typename T>
struct Normals {
  using Element = T;
  static constexpr int per_counter = noise::kPerCounter<T>;
  static __device__ void make(const uint32_t (&words)[4], T (&out)[per_counter]) {
    noise::normals(words, out);
  }
};

// One counter, 16 bytes of output, per thread and step.
template <typename Kind>
__global__ void fill(typename Kind::Element* out, NoiseRange range, int64_t n_counters,
                     bool aligned) {
  using T = typename Kind::Element;
  constexpr int per_counter = Kind::per_counter;
  const uint64_t seed =
      range.seed_tensor == nullptr ? range.seed : static_cast<uint64_t>(*range.seed_tensor);
  const int64_t skipped = static_cast<int64_t>(range.first % per_counter);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t counter = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; counter < n_counters; counter += step) {
    uint32_t words[4];
    random_words(seed, range.stream, range.first / per_counter + counter, words[0], words[1],
                 words[2], words[3]);
    struct alignas(16) Made {
      T values[per_counter];
    } made;
    Kind::make(words, made.values);
    const int64_t start = counter * per_counter - skipped;
    if (aligned && start + per_counter <= range.n) {
      *reinterpret_cast<Made*>(out + start) = made;
    } else {
      for (int i = 0; i < per_counter; ++i) {
        if (start + i >= 0 && start + i < range.n) out[start + i] = made.values[i];
      }
    }
  }
}

template <typename Kind>
void launch(void* out, const NoiseRange& range, cudaStream_t stream) {
  const uint64_t skipped = range.first % Kind::per_counter;
  const int64_t n_counters =
      (range.n + static_cast<int64_t>(skipped) + Kind::per_counter - 1) / Kind::per_counter;
  const bool aligned = skipped == 0 && reinterpret_cast<uintptr_t>(out) % 16 == 0;
  const int64_t blocks = (n_counters + kThreads - 1) / kThreads;
  const int64_t most_blocks = int64_t{1} << 20;
  fill<Kind>
      <<<static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks), kThreads, 0, stream>>>(
          static_cast<typename Kind::Element*>(out), range, n_counters, aligned);
}

}  // namespace

void fill_noise(NoiseKind kind, void* out, bool is_double, const NoiseRange& range,
                cudaStream_t stream) {
  if (range.n <= 0) return;  // a grid of no blocks is an error
  switch (kind) {
    case NoiseKind::bits:
      launch<Bits>(out, range, stream);
      break;
    case NoiseKind::uniform:
      is_double ? launch<Uniforms<double>>(out, range, stream)
                : launch<Uniforms<float>>(out, range, stream);
      break;
    case NoiseKind::normal:
      is_double ? launch<Normals<double>>(out, range, stream)
                : launch<Normals<float>>(out, range, stream);
      break;
  }
}

}  // namespace bsl::cuda
