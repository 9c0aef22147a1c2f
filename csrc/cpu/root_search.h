// Solutions x of g(x) = wanted for a tile of rising functions g: Newton's method between bounds,
// which halves them where it does not halve its own step.
#pragma once

#include "core/math.h"
#include "cpu/rows.h"

namespace bsl {
namespace {

// No solution takes half as many; where the last one is a jump, a bisection does.
constexpr int kMaxSteps = 200;

template <typename T>
struct RootSearch {
  static constexpr T kEps = sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16);

  // To be set: what g is to be, and how far from it it may be, in eps; bounds and a first guess
  // between them, which becomes the solution; 1, or 0 where x is left as it is.
  alignas(64) T wanted[kRows], size[kRows], low[kRows], high[kRows], x[kRows], moves[kRows];
  // g and its derivative at x, which `evaluate` sets.
  alignas(64) T value[kRows], slope[kRows];

  // With kBroad, bounds may be anywhere: every other time half of the numbers between them are
  // left out.
  template <bool kBroad, typename Evaluate>
  void run(const Evaluate& evaluate) {
    alignas(64) T last[kRows];
    for (int t = 0; t < kRows; ++t) last[t] = high[t] - low[t];
    T moving = T(0);
    for (int t = 0; t < kRows; ++t) moving += moves[t];
    for (int step = 0; step < kMaxSteps && moving > T(0); ++step) {
      evaluate();
      const bool by_number = kBroad && step % 2 == 0;
      moving = T(0);
      for (int t = 0; t < kRows; ++t) {
        const T here = x[t], rest = wanted[t] - value[t];
        const bool active = moves[t] > T(0);
        low[t] = active & (rest > T(0)) ? here : low[t];
        high[t] = active & (rest < T(0)) ? here : high[t];
        const T newton = rest / slope[t];
        const T there = here + newton;
        const T middle = kBroad ? (by_number ? middle_number(low[t], high[t])
                                             : T(0.5) * low[t] + T(0.5) * high[t])
                                : low[t] + T(0.5) * (high[t] - low[t]);
        // Not in the middle of a jump, from where any step is 0.
        const bool smooth = slope[t] < math::Real<T>::infinity;
        const bool good = (there >= low[t]) & (there <= high[t]) & smooth &
                          (math::abs(newton) < T(0.5) * last[t]);
        // What is left is what rounding leaves.
        const bool near = (math::abs(rest) <= T(2) * kEps * size[t]) |
                          (smooth & (math::abs(newton) <= kEps * math::abs(here)));
        const T found = good ? there : near ? here : middle;
        const T next = rest == rest ? found : rest;
        last[t] = math::abs(next - here);
        x[t] = active ? next : here;
        const bool more = active & !near & (next != here) & (next == next);
        moves[t] = more ? T(1) : T(0);
        moving += moves[t];
      }
    }
  }

 private:
  using Bits = typename math::Real<T>::Bits;

  // As many numbers of type T below as above, between two of them.
  static T middle_number(T low, T high) {
    constexpr Bits sign = math::Real<T>::sign;
    // In the order of the numbers: negative ones count down.
    const Bits a = math::bits(low) ^ (math::mask_of_top_bit(math::bits(low)) | sign);
    const Bits b = math::bits(high) ^ (math::mask_of_top_bit(math::bits(high)) | sign);
    const Bits middle = (a & b) + ((a ^ b) >> 1);
    return math::from_bits(middle ^ (math::mask_of_top_bit(~middle) | sign));
  }
};

}  // namespace
}  // namespace bsl
