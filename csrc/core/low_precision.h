// The 16-bit floating-point types, for storage only. Their numbers are computed with as float.
//
// Conversions are integer arithmetic and selects. So loops over them vectorise at every instruction
// set level, and all levels round alike: to the nearest, ties to even.
#pragma once

#include <cstdint>

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

struct BFloat16 {
  uint16_t bits;

  BSL_HD static BFloat16 from(float x) {
    const uint32_t b = math::bits(x);
    const uint32_t rounded = b + 0x7fffu + ((b >> 16) & 1u);
    const uint32_t quiet = b | 0x400000u;  // rounding could carry a NaN into infinity
    return {static_cast<uint16_t>((x == x ? rounded : quiet) >> 16)};
  }
  BSL_HD float to_float() const { return math::from_bits(uint32_t{bits} << 16); }
};

struct Half {
  uint16_t bits;

  BSL_HD static Half from(float x) {
    const uint32_t b = math::bits(x), sign = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
    // Normal numbers: the exponent's bias goes from 127 to 15, the mantissa from 23 bits to 10.
    const uint32_t normal = (a - 0x37fff001u + ((a >> 13) & 1u)) >> 13;
    // Subnormal numbers: adding 1/2 rounds, and leaves the result in the last bits.
    const uint32_t subnormal = math::bits(math::from_bits(a) + 0.5f) - 0x3f000000u;
    uint32_t h = a < 0x38800000u ? subnormal : normal;  // 2^-14
    h = a >= 0x477ff000u ? 0x7c00u : h;                 // 65520: infinity
    h = a > 0x7f800000u ? 0x7e00u : h;                  // NaN
    return {static_cast<uint16_t>(h | sign)};
  }
  BSL_HD float to_float() const {
    const uint32_t magnitude = bits & 0x7fffu;
    // Multiplying by 2^112 corrects the exponent's bias, also of subnormal numbers.
    const uint32_t finite = math::bits(math::from_bits(magnitude << 13) * 0x1p112f);
    const uint32_t special = (magnitude << 13) | 0x7f800000u;
    const uint32_t b = magnitude >= 0x7c00u ? special : finite;
    return math::from_bits(b | (uint32_t{bits} & 0x8000u) << 16);
  }
};

}  // namespace
}  // namespace bsl
