// core/root_search.h for a tile of functions.
#pragma once

#include "core/root_search.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

template <typename T>
struct RootSearch {
  // The caller sets these. `wanted` is the value of g at the solution, and `size` its error, in
  // eps. `x` is a first guess between the bounds `low` and `high`, and becomes the solution.
  // `moves` is 1, or 0 where x stays as it is.
  alignas(64) T wanted[kRows], size[kRows], low[kRows], high[kRows], x[kRows], moves[kRows];
  // `evaluate` sets these to g and its derivative at x.
  alignas(64) T value[kRows], slope[kRows];

  // Every other step is given `apart`, see search_step. With kStays, x ends where `evaluate` was
  // called last. Without, it ends one step further.
  template <bool kBroad, bool kStays = false, typename Evaluate>
  void run(const Evaluate& evaluate, T apart = T(0)) {
    alignas(64) T last[kRows];
    for (int t = 0; t < kRows; ++t) last[t] = high[t] - low[t];
    T moving = T(0);
    for (int t = 0; t < kRows; ++t) moving += moves[t];
    for (int step = 0; step < kMaxSteps && moving > T(0); ++step) {
      evaluate();
      moving = T(0);
      for (int t = 0; t < kRows; ++t) {
        const bool active = moves[t] > T(0);
        const SearchStep<T> next =
            search_step<kBroad>(Search<T>{x[t], low[t], high[t], last[t]}, wanted[t] - value[t],
                                slope[t], size[t], step % 2 == 0 ? apart : math::Real<T>::infinity);
        const bool more = active & next.more;
        low[t] = active ? next.search.low : low[t];
        high[t] = active ? next.search.high : high[t];
        last[t] = next.search.last;
        x[t] = (kStays ? more : active) ? next.search.x : x[t];
        moves[t] = more ? T(1) : T(0);
        moving += moves[t];
      }
    }
  }
};

}  // namespace
}  // namespace bsl
