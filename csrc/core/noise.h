// Uniform and normal random numbers from random words.
//
// In float, a counter's four words make four uniforms, or two pairs of normals, from (w0, w1) and
// from (w2, w3). In double, they make two numbers k < 2^52 from (w0, w1) and (w2, w3), low word
// first, and these make two uniforms or one pair of normals. A pair of normals is r cos(a),
// r sin(a) (Box and Muller). The first number makes the radius, r = sqrt(-2 log(u)) with
// 0 < u < 1, the second the angle.
//
// In float, u is the real number (w + 1/2) / 2^32, which float cannot hold: so the tails reach 6.8
// standard deviations, and the smallest radius is 1.5e-5. log(u) is nevertheless accurate to a few
// ulp for every w. In double, u = (k + 1/2) / 2^52 is exact, and the tails reach 8.6.
#pragma once

#include <cstdint>

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace noise {

// Elements made from one counter.
template <typename T>
constexpr int kPerCounter = sizeof(T) == 4 ? 4 : 2;

// The random integer behind one number.
template <typename T>
using Word = typename math::Real<T>::Bits;

// A number in (0, 1): (k + 1/2) / 2^23 in float, (k + 1/2) / 2^52 in double, both exact.
template <typename T>
BSL_HD T uniform(Word<T> word) {
  using R = math::Real<T>;
  constexpr int shift = sizeof(T) == 4 ? 9 : 12;
  constexpr T half_ulp = T(0.5) / R::ulp_is_one;
  return math::from_bits((word >> shift) | R::one) - (T(1) - half_ulp);
}

// -log(u) for u = (word + 1/2) / 2^32.
BSL_HD float negative_log_uniform(uint32_t word) {
  // v = min(u, 1 - u) is right to the last digit, even for u close to 1. The rounding of u does not
  // matter: log(u) vanishes only near 1, and there it is computed from v.
  const int32_t folded = static_cast<int32_t>(word) ^ (static_cast<int32_t>(word) >> 31);
  const float v = static_cast<float>(folded) * 0x1p-32f + 0x1p-33f;
  const float u = static_cast<int32_t>(word) < 0 ? 1.0f - v : v;
  const math::LogReduction<float> reduced = math::log_reduce(u, 0.0f);
  const float f = u >= 0.75f ? -v : reduced.m - 1.0f;
  return -(reduced.e * 0.693147181f + (f + math::log_tail(f)));
}

// -log(u) for u = (k + 1/2) / 2^52.
BSL_HD double negative_log_uniform(uint64_t word) {
  const math::LogReduction<double> reduced = math::log_reduce(uniform<double>(word), 0.0);
  return -math::log_of_reduced(reduced.e, reduced.m - 1.0, 0.0);
}

// The sine and cosine of word / 2^32 turns.
BSL_HD void sincos_turns(uint32_t word, float& sine, float& cosine) {
  // The distance from the nearest quarter turn: the bits below the top two, as a signed number.
  const float r = static_cast<float>(static_cast<int32_t>(word << 2)) * 0x1p-33f;
  math::sincospi_of_reduced(r, sine, cosine);
  math::rotate_quadrants(word + 0x20000000u, sine, cosine);
}

// The sine and cosine of k / 2^52 turns.
BSL_HD void sincos_turns(uint64_t word, double& sine, double& cosine) {
  using R = math::Real<double>;
  const uint64_t turned = word + (uint64_t{1} << 61);
  const uint64_t fraction = (turned << 2 >> 12) & ~uint64_t{3};
  const double r = (math::from_bits(fraction | R::one) - 1.5) * 0.5;
  math::sincospi_of_reduced(r, sine, cosine);
  math::rotate_quadrants(turned, sine, cosine);
}

template <typename T>
BSL_HD void normal_pair(Word<T> radius_word, Word<T> angle_word, T& first, T& second) {
  const T radius = math::plain_sqrt(T(2) * negative_log_uniform(radius_word));
  T sine, cosine;
  sincos_turns(angle_word, sine, cosine);
  first = radius * cosine;
  second = radius * sine;
}

BSL_HD uint64_t join(uint32_t low, uint32_t high) { return (uint64_t{high} << 32) | low; }

// All elements made from one counter.
BSL_HD void normals(const uint32_t (&words)[4], float (&out)[4]) {
  normal_pair(words[0], words[1], out[0], out[1]);
  normal_pair(words[2], words[3], out[2], out[3]);
}
BSL_HD void normals(const uint32_t (&words)[4], double (&out)[2]) {
  normal_pair(join(words[0], words[1]), join(words[2], words[3]), out[0], out[1]);
}
BSL_HD void uniforms(const uint32_t (&words)[4], float (&out)[4]) {
  for (int i = 0; i < 4; ++i) out[i] = uniform<float>(words[i]);
}
BSL_HD void uniforms(const uint32_t (&words)[4], double (&out)[2]) {
  out[0] = uniform<double>(join(words[0], words[1]));
  out[1] = uniform<double>(join(words[2], words[3]));
}

}  // namespace noise
}  // namespace
}  // namespace bsl
