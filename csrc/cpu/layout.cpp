#include "cpu/layout.h"

namespace bsl {

ChunkPlan::ChunkPlan(int64_t numel_, int64_t row, Reduction reduction)
    : numel(numel_), segment(reduction == Reduction::sum ? numel_ : row) {
  if (numel == 0) return;
  if (reduction == Reduction::none) segment = 1;
  if (segment > kChunk) {
    chunks_per_segment = (segment + kChunk - 1) / kChunk;
    n_chunks = numel / segment * chunks_per_segment;
  } else {
    chunk = kChunk / segment * segment;
    n_chunks = (numel + chunk - 1) / chunk;
  }
}

}  // namespace bsl
