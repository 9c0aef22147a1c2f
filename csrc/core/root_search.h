// Solutions x of g(x) = wanted for rising functions g: Newton's method between bounds, which halves
// them where it does not halve its own step.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

template <typename T>
struct Search {
  T x, low, high, last;  // last: the length of the last step
};

// No solution takes half as many steps; where the last one is a jump, a bisection does.
constexpr int kMaxSteps = 200;

// As many numbers of type T below as above, between two of them.
template <typename T>
BSL_HD T middle_number(T low, T high) {
  using Bits = typename math::Real<T>::Bits;
  constexpr Bits sign = math::Real<T>::sign;
  // In the order of the numbers: negative ones count down.
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

// One step, given what is left of g at x, g's derivative there, and how far from it g may end, in
// eps. With kBroad, solutions may be anywhere between bounds that are further apart than `apart`:
// half of the numbers there are left out.
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
  // Not in the middle of a jump, from where any step is 0.
  const bool smooth = slope < math::Real<T>::infinity;
  const bool good =
      (there >= low) & (there <= high) & smooth & (math::abs(newton) < T(0.5) * s.last);
  // What is left is what rounding leaves.
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
