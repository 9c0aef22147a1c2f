// Large results: fresh memory costs as much as computing what goes into it.
#pragma once

#include <cstdint>

namespace bsl {

// Asks for huge pages behind `bytes` of memory about to be written, if there are enough of them. A
// page fault takes about 1 us on a virtual machine, as long as the arithmetic for 800 normals; with
// huge pages there are 512 times fewer. (torch's allocator does so under THP_MEM_ALLOC_ENABLE.)
void expect_writes(void* data, int64_t bytes);

}  // namespace bsl
