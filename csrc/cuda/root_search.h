// core/root_search.h for one function.
#pragma once

#include "core/root_search.h"

namespace bsl {
namespace {

template <typename T>
struct Tangent {
  T value, slope;
};

// From bounds, a first guess between them and how far they are apart. evaluate(x) gives g and its
// derivative there; g may be this far from what is wanted, in eps. `apart`: see search_step, for
// every other one. With kStays, x ends where `evaluate` was called last, not a last step further.
template <bool kBroad, bool kStays = false, typename T, typename Evaluate>
__device__ Search<T> searched(Search<T> search, T wanted, T size, const Evaluate& evaluate,
                              T apart = T(0)) {
  bool more = true;
  for (int step = 0; step < kMaxSteps && more; ++step) {
    const Tangent<T> at = evaluate(search.x);
    const SearchStep<T> next = search_step<kBroad>(search, wanted - at.value, at.slope, size,
                                                   step % 2 == 0 ? apart : math::Real<T>::infinity);
    const T x = search.x;
    search = next.search;
    more = next.more;
    if (kStays && !more) search.x = x;
  }
  return search;
}

}  // namespace
}  // namespace bsl
