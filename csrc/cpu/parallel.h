// Parallel loops on torch's own thread pool.
//
// Work is cut into chunks whose size never depends on the number of threads, and whatever is
// reduced is stored per chunk and combined in chunk order: results are the same for any number of
// threads.
#pragma once

#include <cstdint>

namespace bsl {

// torch_parallel_for of libtorch_cpu, see torch/csrc/stable/c/shim.h. The address arrives from
// Python, so that nothing of torch is needed to build or to link.
using TorchParallelFor = int (*)(int64_t begin, int64_t end, int64_t grain,
                                 void (*body)(int64_t begin, int64_t end, void* context),
                                 void* context);

void set_torch_parallel_for(TorchParallelFor function);
bool has_torch_threads();

// Calls body(begin, end, context) on ranges that cover [0, n). Serial without torch's pool, and in
// a process that was forked (torch's pool does not survive a fork, and would hang).
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
