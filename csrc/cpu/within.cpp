#include "cpu/within.h"

#include <atomic>

#include "cpu/layout.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

template <typename T>
bool within(const T* x, int64_t n, T low, T high) {
  // Few numbers are compared in less time than another thread needs to wake up.
  constexpr int64_t kNumbers = 16 * kChunk;
  std::atomic<bool> all{true};
  parallel_chunks((n + kNumbers - 1) / kNumbers, [&](int64_t chunk) {
    const int64_t begin = chunk * kNumbers;
    const int64_t end = n - begin < kNumbers ? n : begin + kNumbers;
    int outside = 0;
    for (int64_t i = begin; i < end; ++i) outside |= !((x[i] >= low) & (x[i] <= high));
    if (outside != 0) all.store(false, std::memory_order_relaxed);
  });
  return all.load();
}

}  // namespace

namespace BSL_ISA {
extern const WithinKernels within_kernels = {within<float>, within<double>};
}  // namespace BSL_ISA
}  // namespace bsl
