#include "cuda/pointwise.h"

namespace bsl {

UnitPlan::UnitPlan(int64_t numel_, int64_t row, Reduction reduction) : numel(numel_) {
  constexpr int64_t group = 4;
  if (numel == 0) return;
  if (reduction == Reduction::none) {
    // In large calls a thread takes several groups: finding its unit costs as much as one group.
    lanes = 32;
    segment = piece = lanes * group * (numel < int64_t{1} << 23 ? 1 : 8);
    units = (numel + segment - 1) / segment;
    return;
  }
  // There must be enough pieces to keep a device busy, and few enough to be added up at once. Rows
  // have larger pieces: they are usually many, and a row's sum must not depend on their number.
  const bool is_whole = reduction == Reduction::sum;
  const int64_t least_piece = is_whole ? 1024 : 4096, most_pieces = is_whole ? 16384 : 4096;
  segment = is_whole ? numel : row;
  const int64_t even = (segment + most_pieces - 1) / most_pieces;
  piece = even > least_piece ? (even + group - 1) / group * group : least_piece;
  if (piece > segment) piece = segment;
  pieces = (segment + piece - 1) / piece;
  units = numel / segment * pieces;
  while (lanes < 32 && lanes * group < piece) lanes *= 2;
}

}  // namespace bsl
