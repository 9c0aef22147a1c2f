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

ChunkPlan plan_rows(int64_t rows, int64_t columns, Reduction reduction) {
  ChunkPlan plan(rows, 1, reduction);
  const int64_t wanted = kChunk / columns / kBlock * kBlock;
  plan.chunk = wanted > kBlock ? wanted : kBlock;
  if (columns > kChunk) plan.chunk = 1;
  if (reduction == Reduction::sum) {
    plan.chunks_per_segment = (rows + plan.chunk - 1) / plan.chunk;
  }
  plan.n_chunks = (rows + plan.chunk - 1) / plan.chunk;
  return plan;
}

}  // namespace bsl
