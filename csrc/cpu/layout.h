// The blocks and chunks that the CPU's kernels cut the work of a call into.
#pragma once

#include <cstdint>

#include "core/layout.h"
#include "core/platform.h"

namespace bsl {

// Elements of a block, which a kernel handles at a time. A block of each operand fits the L1 cache.
constexpr int kBlock = 256;
// Elements of a chunk, which a thread takes at a time. The number is fixed, so that results do not
// depend on the thread count.
constexpr int64_t kChunk = 32 * kBlock;

// Cuts the elements of a call into chunks. For sums over segments (rows, or all), a chunk holds
// either whole segments or a part of one. The partial sums of a segment's chunks are added up in
// order.
struct ChunkPlan {
  int64_t numel = 0;
  int64_t segment = 1;             // elements summed into one result
  int64_t chunk = 1;               // elements per chunk
  int64_t chunks_per_segment = 1;  // 1 also where a chunk holds several segments
  int64_t n_chunks = 0;

  ChunkPlan() = default;
  // `row` is the length of the last dimension. `largest` is the largest length of a chunk, less
  // than kChunk where an element is much work.
  ChunkPlan(int64_t numel, int64_t row, Reduction reduction, int64_t largest = kChunk);

  // The number of partial sums, for which the caller provides memory.
  int64_t n_partials() const { return chunks_per_segment > 1 ? n_chunks : 0; }

  BSL_HD int64_t begin(int64_t index) const {
    return chunks_per_segment == 1
               ? index * chunk
               : index / chunks_per_segment * segment + index % chunks_per_segment * chunk;
  }
  BSL_HD int64_t end(int64_t index) const {
    const int64_t limit =
        chunks_per_segment == 1 ? numel : (index / chunks_per_segment + 1) * segment;
    const int64_t full = begin(index) + chunk;
    return full < limit ? full : limit;
  }
};

// A plan whose elements are rows. A chunk has about kChunk numbers, so that few but wide rows also
// occupy several threads.
ChunkPlan plan_rows(int64_t rows, int64_t columns, Reduction reduction);

}  // namespace bsl
