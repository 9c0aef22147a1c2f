#include "cpu/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bsl {

void expect_writes(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t huge = uintptr_t{1} << 21;
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + huge - 1) & ~(huge - 1);
  const uintptr_t end = (address + static_cast<uintptr_t>(bytes)) & ~(huge - 1);
  // madvise is only a hint, so its result does not matter.
  if (data != nullptr && begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}

}  // namespace bsl
