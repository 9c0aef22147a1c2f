// Parallel loops on torch's own thread pool.
//
// The size of a chunk of work never depends on the number of threads. Sums are stored per chunk and
// combined in the order of the chunks. So results are the same for any number of threads.
#pragma once

#include <cstdint>

namespace bsl {

// torch_parallel_for of libtorch_cpu, see torch/csrc/stable/c/shim.h. The address arrives from
// Python, so that building and linking need no torch.
using TorchParallelFor = int (*)(int64_t begin, int64_t end, int64_t grain,
                                 void (*body)(int64_t begin, int64_t end, void* context),
                                 void* context);

void set_torch_parallel_for(TorchParallelFor function);
bool has_torch_threads();

// Calls body(begin, end, context) on ranges that cover [0, n). The loop is serial without torch's
// pool, and in a forked process, where torch's pool would hang.
void parallel_for(int64_t n, void (*body)(int64_t begin, int64_t end, void* context),
                  void* context);

namespace {

// Calls f(chunk) for each chunk in [0, n_chunks), in any order.
template <typename F>
inline void parallel_chunks(int64_t n_chunks, const F& f) {
  if (n_chunks == 1) {
    f(int64_t{0});
    return;
  }
  parallel_for(
      n_chunks,
      [](int64_t begin, int64_t end, void* context) {
        const F& body = *static_cast<const F*>(context);
        for (int64_t chunk = begin; chunk < end; ++chunk) body(chunk);
      },
      const_cast<F*>(&f));
}

}  // namespace
}  // namespace bsl
