#include "cpu/parallel.h"

#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace bsl {
namespace {

std::atomic<TorchParallelFor> torch_parallel_for{nullptr};
std::atomic<bool> forked{false};

void watch_for_fork() {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
  static_cast<void>(registered);
#endif
}

}  // namespace

void set_torch_parallel_for(TorchParallelFor function) {
  watch_for_fork();
  torch_parallel_for.store(function, std::memory_order_relaxed);
}

bool has_torch_threads() {
  return torch_parallel_for.load(std::memory_order_relaxed) != nullptr &&
         !forked.load(std::memory_order_relaxed);
}

void parallel_for(int64_t n, void (*body)(int64_t begin, int64_t end, void* context),
                  void* context) {
  if (n <= 0) return;
  if (n == 1 || !has_torch_threads() ||
      torch_parallel_for.load(std::memory_order_relaxed)(0, n, 1, body, context) != 0) {
    body(0, n, context);
  }
}

}  // namespace bsl
