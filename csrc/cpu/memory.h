// Huge pages for large results. To fill fresh memory takes as much time as the arithmetic without
// them.
#pragma once

#include <cstdint>

namespace bsl {

// Asks for huge pages for `bytes` of memory about to be written, if they hold a whole huge page. A
// page fault takes about 1 us on a virtual machine, as long as the arithmetic for 800 normals. Huge
// pages have 512 times fewer faults. (torch's allocator asks for them if THP_MEM_ALLOC_ENABLE is
// set.)
void expect_writes(void* data, int64_t bytes);

}  // namespace bsl
