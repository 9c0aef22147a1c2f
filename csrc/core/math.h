// Elementary functions for float and double, on the host and on CUDA devices.
//
// Each is straight-line code with selects instead of branches. Compilers turn a loop over it into
// SIMD instructions, at every instruction set level from SSE2 up. docs/numerics.md lists the
// errors, and tests/core/test_math.py checks them. They hold with and without FMA: where a rounding
// error is compensated, the products involved are exact, so contraction cannot hurt.
//
// Three rules keep loops vectorisable. Selects compare values of the width of T, and put NaN on
// the side that survives. Integers come from the bits of x + 1.5 * 2^m, never from conversions.
// 64-bit shifts are logical. Coefficients come from tools/fit_polynomials.py.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/platform.h"
#if defined(__CUDA_ARCH__)
#include "core/approximate.h"
#endif

namespace bsl {
namespace {
namespace math {

template <typename T>
struct Real;

template <>
struct Real<float> {
  using Bits = uint32_t;
  static constexpr int mantissa = 23;
  static constexpr Bits bias = 127;
  static constexpr Bits one = 0x3f800000u;        // the bits of 1
  static constexpr Bits log_start = 0x3f400000u;  // the bits of 3/4, see log_reduce
  static constexpr Bits integer = 0x4b000000u;    // the bits of 2^23, where an ulp is 1
  static constexpr Bits sign = 0x80000000u;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr Bits round_bits = 0x4b400000u;
  static constexpr float min_normal = 1.17549435e-38f;
  static constexpr float max = 3.40282347e+38f;
  static constexpr float infinity = __builtin_inff();
  static constexpr float nan = __builtin_nanf("");
  static constexpr float ulp_is_one = 8388608.0f;  // 2^23
  static constexpr float pi = 3.14159274f;
  static constexpr float pi_low = -8.74227766e-08f;
  static constexpr float log2_e = 1.44269504f;
  // The two add up to log(2). The product of ln2_high and an exponent is exact.
  static constexpr float ln2_high = 0.693145752f;
  static constexpr float ln2_low = 1.42860677e-06f;
  static constexpr float exp_max = 89.0f, exp_min = -104.0f;  // beyond: infinity, zero
  static constexpr float expm1_min = -18.0f;                  // beyond: -1
  static constexpr float tanh_max = 10.0f;                    // beyond: 1
};

template <>
struct Real<double> {
  using Bits = uint64_t;
  static constexpr int mantissa = 52;
  static constexpr Bits bias = 1023;
  static constexpr Bits one = 0x3ff0000000000000u;
  static constexpr Bits log_start = 0x3fe5555500000000u;  // just below 2/3
  static constexpr Bits integer = 0x4330000000000000u;
  static constexpr Bits sign = 0x8000000000000000u;
  static constexpr double round = 6755399441055744.0;
  static constexpr Bits round_bits = 0x4338000000000000u;
  static constexpr double min_normal = 2.2250738585072014e-308;
  static constexpr double max = 1.7976931348623157e+308;
  static constexpr double infinity = __builtin_inf();
  static constexpr double nan = __builtin_nan("");
  static constexpr double ulp_is_one = 4503599627370496.0;
  static constexpr double pi = 3.141592653589793;
  static constexpr double pi_low = 1.2246467991473532e-16;
  static constexpr double log2_e = 1.4426950408889634;
  static constexpr double ln2_high = 0x1.62e42fefa3800p-1;
  static constexpr double ln2_low = 0x1.ef35793c76730p-45;
  static constexpr double exp_max = 710.0, exp_min = -746.0;
  static constexpr double expm1_min = -38.0;
  static constexpr double tanh_max = 20.0;
};

BSL_HD uint32_t bits(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof(b));
  return b;
}
BSL_HD uint64_t bits(double x) {
  uint64_t b;
  memcpy(&b, &x, sizeof(b));
  return b;
}
BSL_HD float from_bits(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof(x));
  return x;
}
BSL_HD double from_bits(uint64_t b) {
  double x;
  memcpy(&x, &b, sizeof(x));
  return x;
}

#if defined(__CUDA_ARCH__)
BSL_HD float sqrt(float x) { return ::sqrtf(x); }
BSL_HD double sqrt(double x) { return ::sqrt(x); }
#else
BSL_HD float sqrt(float x) { return __builtin_sqrtf(x); }
BSL_HD double sqrt(double x) { return __builtin_sqrt(x); }
#endif

// The square root of x in [1e-30, 1e30], and a / b for a in [0, 2] and b in [1, 1e9]. A float
// quotient below 1e-30 may be an ulp off. CUDA's own square root and quotient branch on special
// values, and around a branch the compiler cannot interleave the elements of a group. These
// functions take the same steps without the branch.
template <typename T>
BSL_HD T plain_sqrt(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) {
    const float inverse = approximate_rsqrt(x);
    const float root = x * inverse;
    return ::fmaf(::fmaf(-root, root, x), 0.5f * inverse, root);
  }
#endif
  return sqrt(x);
}

template <typename T>
BSL_HD T plain_quotient(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) {
    const float rough = approximate_reciprocal(b);
    const float inverse = ::fmaf(::fmaf(-b, rough, 1.0f), rough, rough);
    const float q = ::fmaf(::fmaf(-b, a * inverse, a), inverse, a * inverse);
    return ::fmaf(::fmaf(-b, q, a), inverse, q);
  }
#endif
  return a / b;
}

template <typename T>
BSL_HD T abs(T x) {
  return from_bits(bits(x) & ~Real<T>::sign);
}

// `x` with the sign bit of `sign` where its own is clear.
template <typename T>
BSL_HD T with_sign(T x, T sign) {
  return from_bits(bits(x) | (bits(sign) & Real<T>::sign));
}

// c0 + c1 x + c2 x^2 + ..., given x^2. It has as many operations as Horner's rule, in a chain of
// half the length.
template <typename T>
BSL_HD T polynomial(T, T, T c0) {
  return c0;
}
template <typename T>
BSL_HD T polynomial(T x, T, T c0, T c1) {
  return c0 + x * c1;
}
template <typename T, typename... Rest>
BSL_HD T polynomial(T x, T x2, T c0, T c1, T c2, Rest... rest) {
  return (c0 + x * c1) + x2 * polynomial(x, x2, c2, rest...);
}

// The tails: each function less its leading terms.

// (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2.
BSL_HD float exp_tail(float r) {
  return polynomial(r, r * r, 4.9999997e-01f, 1.6666543e-01f, 4.1667204e-02f, 8.36661e-03f,
                    1.3882502e-03f);
}
BSL_HD double exp_tail(double r) {
  return polynomial(r, r * r, 5.e-01, 1.6666666666666677e-01, 4.1666666666666505e-02,
                    8.333333333321567e-03, 1.3888888888963164e-03, 1.984126988632733e-04,
                    2.48015871714818e-05, 2.7557243971256823e-06, 2.755740311331575e-07,
                    2.5109131781962164e-08, 2.087531686416925e-09);
}

// log(1 + f) - f for -1/4 <= f <= 1/2; in double from -1/3 on.
BSL_HD float log_tail(float f) {
  const float p =
      polynomial(f, f * f, 3.333345e-01f, -2.5000095e-01f, 1.9990861e-01f, -1.6647314e-01f,
                 1.4478394e-01f, -1.3161185e-01f, 1.0463015e-01f, -4.5074806e-02f);
  return f * f * (f * p - 0.5f);
}
BSL_HD double log_tail(double f) {
  // log(1 + f) = 2 atanh(s) with s = f / (2 + f), and 2 s = f - s f. A division is cheaper than the
  // twelve further terms of a series in f.
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double p = polynomial(z, z * z, 6.666666666667268e-01, 3.9999999996176916e-01,
                              2.857142939282748e-01, 2.2222138684689866e-01, 1.818634918170018e-01,
                              1.5250316019755242e-01, 1.536726901882817e-01);
  const double half_square = 0.5 * f * f;
  return s * (half_square + z * p) - half_square;
}

// (tanh(x) / x - 1) / x^2 for z = x^2, |x| <= 0.55.
BSL_HD float tanh_tail(float z) {
  return polynomial(z, z * z, -3.3333316e-01f, 1.3332586e-01f, -5.385231e-02f, 2.107168e-02f,
                    -6.274242e-03f);
}
BSL_HD double tanh_tail(double z) {
  return polynomial(z, z * z, -3.33333333333333e-01, 1.333333333332662e-01, -5.3968253963760336e-02,
                    2.186948838584861e-02, -8.863232601333525e-03, 3.5920920294446644e-03,
                    -1.455542839917448e-03, 5.884444641899506e-04, -2.3338151374203175e-04,
                    8.33163792679274e-05, -1.9494648618621754e-05);
}

// (sin(pi r) / r - pi) / z and (cos(pi r) - 1) / z for z = r^2, |r| <= 1/4.
BSL_HD float sinpi_tail(float z) {
  return polynomial(z, z * z, -5.167709f, 2.5498052f, -5.894187e-01f);
}
BSL_HD double sinpi_tail(double z) {
  return polynomial(z, z * z, -5.167712780049959, 2.5501640398739136, -5.992645289680079e-01,
                    8.214586991013742e-02, -7.370030643226086e-03, 4.6157521338590393e-04);
}
BSL_HD float cospi_tail(float z) {
  return polynomial(z, z * z, -4.934802f, 4.0587077f, -1.3350506f, 2.3136424e-01f);
}
BSL_HD double cospi_tail(double z) {
  return polynomial(z, z * z, -4.934802200544679, 4.058712126416749, -1.335262768852004,
                    2.3533063019289926e-01, -2.5806885670888752e-02, 1.929465716968712e-03,
                    -1.0356655884576215e-04);
}

// x = n log(2) + r + r_low with |r| <= log(2) / 2, and |r_low| at most half an ulp of r.
template <typename T>
struct ExpReduction {
  T r, r_low;
  typename Real<T>::Bits n;  // two's complement
};

template <typename T>
BSL_HD ExpReduction<T> exp_reduce(T x) {
  using R = Real<T>;
  const T shifted = x * R::log2_e + R::round;
  const T n = shifted - R::round;
  const T high = x - n * R::ln2_high;  // exact
  const T low = n * R::ln2_low;
  const T r = high - low;
  return {r, (high - r) - low, bits(shifted) - R::round_bits};
}

// 2^n = a b, where neither a nor b is subnormal or infinite, even if 2^n is.
template <typename T>
struct PowerHalves {
  T a, b;
};

template <typename T>
BSL_HD PowerHalves<T> power_halves(typename Real<T>::Bits n) {
  using R = Real<T>;
  using Bits = typename R::Bits;
  const Bits biased = n + 2048;  // even and positive
  const Bits half = biased >> 1;
  return {from_bits(Bits(half + (R::bias - 1024)) << R::mantissa),
          from_bits(Bits(biased - half + (R::bias - 1024)) << R::mantissa)};
}

// x 2^n, with one rounding only if the result is subnormal.
template <typename T>
BSL_HD T scale_by_power(T x, typename Real<T>::Bits n) {
  const PowerHalves<T> power = power_halves<T>(n);
  return x * power.a * power.b;
}

// exp(r + r_low), within about 0.02 ulp of correct rounding.
template <typename T>
BSL_HD T exp_of_reduced(T r, T r_low) {
  const T sum = T(1) + r;
  const T error = r - (sum - T(1));
  return sum + (error + (r * r * exp_tail(r) + r_low * sum));
}

template <typename T>
BSL_HD T exp(T x) {
  using R = Real<T>;
  x = x > R::exp_max ? R::exp_max : x;
  x = x < R::exp_min ? R::exp_min : x;
  const ExpReduction<T> reduced = exp_reduce(x);
  return scale_by_power(exp_of_reduced(reduced.r, reduced.r_low), reduced.n);
}

// exp(x) = a b for |x| up to twice where it overflows, and as at that border beyond. Neither is
// infinite, so that nothing times both is nothing.
template <typename T>
struct ExpFactors {
  T a, b;
};

template <typename T>
constexpr T kExpFactorsMost = T(2) * Real<T>::exp_max - T(6);

template <typename T>
BSL_HD ExpFactors<T> exp_factors(T x) {
  x = x > kExpFactorsMost<T> ? kExpFactorsMost<T> : x;
  x = x < -kExpFactorsMost<T> ? -kExpFactorsMost<T> : x;
  const ExpReduction<T> reduced = exp_reduce(x);
  const PowerHalves<T> power = power_halves<T>(reduced.n);
  return {exp_of_reduced(reduced.r, reduced.r_low) * power.a, power.b};
}

// exp(-|x|).
template <typename T>
BSL_HD T exp_minus_abs(T x) {
  using R = Real<T>;
  T y = from_bits(bits(x) | R::sign);
  y = y < R::exp_min ? R::exp_min : y;
  const ExpReduction<T> reduced = exp_reduce(y);
  // A cheaper scale_by_power, at half the cost: with n <= 0, one factor can be a constant.
  constexpr typename R::Bits lift = R::bias / 2 + 1;
  const T power = from_bits((reduced.n + (R::bias + lift)) << R::mantissa);
  return exp_of_reduced(reduced.r, reduced.r_low) * power *
         from_bits((R::bias - lift) << R::mantissa);
}

template <typename T>
BSL_HD T expm1(T x) {
  using R = Real<T>;
  using Bits = typename R::Bits;
  T c = x > R::exp_max ? R::exp_max : x;
  c = c < R::expm1_min ? R::expm1_min : c;
  const ExpReduction<T> reduced = exp_reduce(c);
  const T r = reduced.r;
  // The result is 2^n ((1 - 2^-n) + expm1(r)). n - 1 is always the exponent of a normal number,
  // but n may not be.
  const Bits n = reduced.n - 1;
  const T power = from_bits(Bits(n + R::bias) << R::mantissa);
  const T inverse = from_bits(Bits(R::bias - n) << R::mantissa);
  const T offset = T(1) - T(0.5) * inverse;
  const T sum = offset + r;
  const T error = r - (sum - offset);
  const T value = sum + (error + (r * r * exp_tail(r) + (reduced.r_low + reduced.r_low * r)));
  const T result = T(2) * value * power;
  return x == T(0) ? x : result;  // the sums lose the sign of -0
}

// x = m 2^e with log_start <= m < 2 log_start, for normal x > 0. In float the start of the range
// hardly matters. In double, a start at 3/4 would cost log(x) 0.15 ulp just below 3/4.
template <typename T>
struct LogReduction {
  T e, m;
  typename Real<T>::Bits exponent;  // e + bias, in the bits of a number's exponent
};

// `e_offset` is added to e, for an x that was scaled.
template <typename T>
BSL_HD LogReduction<T> log_reduce(T x, T e_offset) {
  using R = Real<T>;
  using Bits = typename R::Bits;
  constexpr Bits fraction = (Bits(1) << R::mantissa) - 1;
  const Bits shifted = bits(x) + (R::one - R::log_start);
  return {
      from_bits((shifted >> R::mantissa) | R::integer) - (R::ulp_is_one + T(R::bias) - e_offset),
      from_bits((shifted & fraction) + R::log_start), shifted & ~fraction};
}

// e log(2) + log(1 + f + f_low).
template <typename T>
BSL_HD T log_of_reduced(T e, T f, T f_low) {
  using R = Real<T>;
  const T high = e * R::ln2_high;  // exact
  const T sum = high + f;
  const T error = (f - (sum - high)) + f_low;
  return sum + (error + (log_tail(f) + e * R::ln2_low));
}

template <typename T>
BSL_HD T log(T x) {
  using R = Real<T>;
  const bool subnormal = x < R::min_normal;
  const LogReduction<T> reduced =
      log_reduce(subnormal ? x * R::ulp_is_one : x, subnormal ? -T(R::mantissa) : T(0));
  T result = log_of_reduced(reduced.e, reduced.m - T(1), T(0));
  result = x < R::infinity ? result : x;
  const T special = x == T(0) ? -R::infinity : R::nan;
  return x > T(0) ? result : special;
}

// log(x) for a normal number x > 0; other arguments give wrong results.
template <typename T>
BSL_HD T log_of_normal(T x) {
  const LogReduction<T> reduced = log_reduce(x, T(0));
  return log_of_reduced(reduced.e, reduced.m - T(1), T(0));
}

// log(1 + x) for a finite x > -1; other arguments give wrong results. For x = -0 it is +0.
template <typename T>
BSL_HD T log1p_of_finite(T x) {
  using R = Real<T>;
  // 1 + x = u + c exactly.
  const T u = T(1) + x;
  const T back = u - T(1);
  const T c = (T(1) - (u - back)) + (x - back);
  const LogReduction<T> reduced = log_reduce(u, T(0));
  const T scaled = c * from_bits(2 * R::one - reduced.exponent);  // c 2^-e
  const T f_high = reduced.m - T(1);
  const T f_rest = x < T(4) * R::ulp_is_one ? scaled : T(0);
  const T f = f_high + f_rest;
  return log_of_reduced(reduced.e, f, f_rest - (f - f_high));
}

template <typename T>
BSL_HD T log1p(T x) {
  using R = Real<T>;
  T result = log1p_of_finite(x);
  result = x < R::infinity ? result : x;
  result = x == T(0) ? x : result;
  const T special = x == T(-1) ? -R::infinity : R::nan;
  return x > T(-1) ? result : special;
}

// log of a positive number that is 1 + `less_one`: each where it is accurate.
template <typename T>
BSL_HD T log_near_one(T less_one, T whole) {
  const T near = log1p(less_one), far = log(whole);
  return less_one < T(-0.5) ? far : near;
}

// log(1 + exp(x)), with full relative accuracy on both sides.
template <typename T>
BSL_HD T softplus(T x) {
  const T e = exp_minus_abs(x);
  // log(1 + e) for 0 <= e <= 1. 1 + e is never rounded: where e is large, it is 2 (1 + (e - 1) / 2)
  // with an exact e - 1.
  const bool large = e > T(0.5);
  const T f = large ? T(0.5) * (e - T(1)) : e;
  const T tail = log_of_reduced(large ? T(1) : T(0), f, T(0));
  return (x < T(0) ? T(0) : x) + tail;
}

template <typename T>
BSL_HD T sigmoid(T x) {
  const T e = exp_minus_abs(x);
  const T sum = T(1) + e;
  const T lost = e - (sum - T(1));
  const T y = plain_quotient(x < T(0) ? e : T(1), sum);
  const T inverse = x < T(0) ? T(1) - y : y;  // 1 / sum
  return y - y * (lost * inverse);
}

template <typename T>
BSL_HD T tanh(T x) {
  using R = Real<T>;
  T a = abs(x);
  const T z = a * a;
  const T small = a + a * (z * tanh_tail(z));
  a = a > R::tanh_max ? R::tanh_max : a;
  const ExpReduction<T> reduced = exp_reduce(a + a);
  const T power = from_bits(typename R::Bits(reduced.n + R::bias) << R::mantissa);
  const T e = exp_of_reduced(reduced.r, reduced.r_low) * power;
  const T large = T(1) - plain_quotient(T(2), T(1) + e);
  return with_sign(a < T(0.55) ? small : large, x);
}

// The sine and cosine of pi r for |r| <= 1/4.
template <typename T>
BSL_HD void sincospi_of_reduced(T r, T& sine, T& cosine) {
  using R = Real<T>;
  const T z = r * r;
  sine = r * R::pi + r * (z * sinpi_tail(z) + R::pi_low);
  cosine = T(1) + z * cospi_tail(z);
}

// Ones if the top bit is set, else zeros. 64-bit arithmetic shifts are slow below AVX-512.
BSL_HD uint32_t mask_of_top_bit(uint32_t b) {
  return static_cast<uint32_t>(static_cast<int32_t>(b) >> 31);
}
BSL_HD uint64_t mask_of_top_bit(uint64_t b) { return 0 - (b >> 63); }

// Turns sine and cosine by quarter turns, as many as the top two bits of `quadrant` say.
template <typename T>
BSL_HD void rotate_quadrants(typename Real<T>::Bits quadrant, T& sine, T& cosine) {
  using R = Real<T>;
  const auto next = quadrant + R::sign / 2;
  const auto swap = (bits(sine) ^ bits(cosine)) & mask_of_top_bit(quadrant << 1);
  sine = from_bits(bits(sine) ^ swap ^ (quadrant & R::sign));
  cosine = from_bits(bits(cosine) ^ swap ^ (next & R::sign));
}

// sin(pi x) and cos(pi x), for x of any size.
template <typename T>
BSL_HD void sincospi(T x, T& sine, T& cosine) {
  using R = Real<T>;
  // Numbers from 2^(m + 1) on are even, so they count as 0. Infinities give NaN.
  T a = abs(x);
  a = a >= T(2) * R::ulp_is_one ? a - a : a;
  // Reduce to [-1, 1], then to [-1/4, 1/4]. Both steps are exact.
  a = a - T(2) * ((T(0.5) * a + R::ulp_is_one) - R::ulp_is_one);
  const T shifted = T(2) * a + R::round;
  const T r = a - T(0.5) * (shifted - R::round);
  sincospi_of_reduced(r, sine, cosine);
  rotate_quadrants(bits(shifted) << (sizeof(T) * 8 - 2), sine, cosine);
  sine = from_bits(bits(sine) ^ (bits(x) & R::sign));
}

}  // namespace math
}  // namespace
}  // namespace bsl
