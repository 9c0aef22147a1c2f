// Solutions x of g(x) = wanted for rising functions g, by Newton's method between bounds. Bisection
// takes over where a step of Newton's is more than half as long as the one before.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

template <typename T>
struct Search {
  T x, low, high, last;  // last: the length of the last step
};

// Searches take less than half as many steps. Only bisections into a jump of g may take more.
constexpr int kMaxSteps = 200;

// The number in the middle between two: as many numbers of type T lie below it as above.
template <typename T>
BSL_HD T middle_number(T low, T high) {
  using Bits = typename math::Real<T>::Bits;
  constexpr Bits sign = math::Real<T>::sign;
  // Bits in the order of the numbers they stand for. Those of negative numbers are inverted.
  const Bits a = math::bits(low) ^ (math::mask_of_top_bit(math::bits(low)) | sign);
  const Bits b = math::bits(high) ^ (math::mask_of_top_bit(math::bits(high)) | sign);
  const Bits middle = (a & b) + ((a ^ b) >> 1);
  return math::from_bits(middle ^ (math::mask_of_top_bit(~middle) | sign));
}

template <typename T>
struct SearchStep {
  Search<T> search;
  bool more;
};

// One step. `rest` is wanted - g(x), `slope` is g's derivative at x, and `size` is the error that g
// may end with, in eps. With kBroad, bounds that are further apart than `apart` are bisected by the
// number of floating-point numbers between them: solutions may have any magnitude there.
template <bool kBroad, typename T>
BSL_HD SearchStep<T> search_step(const Search<T>& s, T rest, T slope, T size, T apart) {
  constexpr T eps = sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16);
  constexpr T root_eps = sizeof(T) == 4 ? T(3.4526698e-4) : T(1.4901161193847656e-8);
  const T low = rest > T(0) ? s.x : s.low;
  const T high = rest < T(0) ? s.x : s.high;
  const T newton = rest / slope;
  const T there = s.x + newton;
  T middle = T(0.5) * low + T(0.5) * high;
  if constexpr (kBroad) middle = high - low > apart ? middle_number(low, high) : middle;
  // In the middle of a jump the slope is infinite and Newton's step is 0.
  const bool smooth = slope < math::Real<T>::infinity;
  const bool good =
      (there >= low) & (there <= high) & smooth & (math::abs(newton) < T(0.5) * s.last);
  // The search ends where the rest is no more than rounding.
  const bool near = (math::abs(rest) <= T(2) * eps * size) |
                    (smooth & (math::abs(newton) <= eps * math::abs(s.x)));
  // The last step is not looked at any more. Where g is nearly flat, rounding makes it so long that
  // the derivative need not hold on the way.
  const bool safe = !near | (math::abs(newton) <= root_eps * (T(1) + math::abs(s.x)));
  const T found = good & safe ? there : near ? s.x : middle;
  const T next = rest == rest ? found : rest;
  const bool more = !near & (next != s.x) & (next == next);
  return {{next, low, high, math::abs(next - s.x)}, more};
}

}  // namespace
}  // namespace bsl
