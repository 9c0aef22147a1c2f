#include "cuda/pointwise.h"

namespace bsl {

UnitPlan::UnitPlan(int64_t numel_, int64_t row, Reduction reduction) : numel(numel_) {
  constexpr int64_t group = 4, least_piece = 1024, most_pieces = 16384;
  if (numel == 0) return;
  if (reduction == Reduction::none) {
    segment = piece = group;
    units = (numel + group - 1) / group;
    return;
  }
  segment = reduction == Reduction::sum ? numel : row;
  // Enough pieces to keep a device busy, and few enough to be added up at once.
  const int64_t even = (segment + most_pieces - 1) / most_pieces;
  piece = even > least_piece ? (even + group - 1) / group * group : least_piece;
  if (piece > segment) piece = segment;
  pieces = (segment + piece - 1) / piece;
  units = numel / segment * pieces;
  while (lanes < 32 && lanes * group < piece) lanes *= 2;
}

}  // namespace bsl
