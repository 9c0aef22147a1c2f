#include "cpu/layout.h"

namespace bsl {

ChunkPlan::ChunkPlan(int64_t numel_, int64_t row, Reduction reduction, int64_t largest)
    : numel(numel_), segment(reduction == Reduction::sum ? numel_ : row), chunk(largest) {
  if (numel == 0) return;
  if (reduction == Reduction::none) segment = 1;
  if (segment > largest) {
    chunks_per_segment = (segment + largest - 1) / largest;
    n_chunks = numel / segment * chunks_per_segment;
  } else {
    chunk = largest / segment * segment;
    n_chunks = (numel + chunk - 1) / chunk;
  }
}

}  // namespace bsl
