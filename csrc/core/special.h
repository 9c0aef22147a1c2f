// Special functions for a few densities; core/math.h has the elementary ones.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace special {

// log(1 + z^2) of z >= 0, also where z^2 overflows. It takes the steps of log1p_of_finite, or is
// 2 log(z) where 1 + z^2 rounds to z^2. If `far`, z itself overflows, and the argument `z` is
// z exp(log_unit).
template <typename T>
BSL_HD T log_one_plus_square(T z, bool far = false, T log_unit = T(0)) {
  using R = math::Real<T>;
  // Compilers would make a branch of `or`.
  const bool large = z > (far ? T(-1) : T(sizeof(T) == 4 ? 4096 : 67108864));
  const T square = z * z;
  const T u = large ? z : T(1) + square;
  const T back = u - T(1);
  const T c = (T(1) - (u - back)) + (square - back);
  const math::LogReduction<T> reduced = math::log_reduce(u, T(0));
  const T scaled = c * math::from_bits(2 * R::one - reduced.exponent);
  const T f_high = reduced.m - T(1);
  const T f_rest = large ? T(0) : scaled;
  const T f = f_high + f_rest;
  const T log = math::log_of_reduced(reduced.e, f, f_rest - (f - f_high));
  const T finite = u < R::infinity ? log : u;
  return large ? T(2) * (finite - (far ? log_unit : T(0))) : finite;
}

// With g(y) = lgamma(y + 1/2) - lgamma(y) - log(y) / 2 and z = 1 / y^2, the first function is
// y g(y), the second -y^2 g'(y). Stirling's series of both lgammas give the coefficients of z^k:
// c(k + 1) and (2 k + 1) c(k + 1) with c(k) = -(1 - 4^-k) B(2 k) / (k (2 k - 1)) and Bernoulli
// numbers B. The truncation error is less than 2e-8 for y >= 4 in float, 5e-19 for y >= 10 in
// double.
BSL_HD float half_step_series(float z) {
  return math::polynomial(z, z * z, -0.125f, 5.2083333e-03f, -1.5625e-03f, 1.1858259e-03f);
}
BSL_HD float half_step_slope(float z) {
  return math::polynomial(z, z * z, -0.125f, 1.5625e-02f, -7.8125e-03f, 8.3007812e-03f);
}
BSL_HD double half_step_series(double z) {
  return math::polynomial(z, z * z, -0.125, 0.005208333333333333, -0.0015625, 0.0011858258928571428,
                          -0.001681857638888889, 0.0038341175426136364, -0.012819730318509615,
                          0.05910040537516276, -0.359287374159869);
}
BSL_HD double half_step_slope(double z) {
  return math::polynomial(z, z * z, -0.125, 0.015625, -0.0078125, 0.00830078125, -0.01513671875,
                          0.04217529296875, -0.166656494140625, 0.8865060806274414,
                          -6.107885360717773);
}

// `whole` is the product of x + i over i = 1, ..., N - 1. `half` is the product of x + i + 1/2 over
// i = 0, ..., N - 1. `sum` / `sum_below` is the sum of 1 / ((x + i) (x + i + 1/2)) over i = 1, ...,
// N - 1.
template <typename T>
struct Steps {
  T whole, half, sum, sum_below;
};

template <int N, typename T>
BSL_HD Steps<T> steps(T x) {
  if constexpr (N == 1) {
    const T b = x + T(0.5);
    return {T(1), b, T(0), T(1)};
  } else {
    const Steps<T> s = steps<N - 1>(x);
    const T a = x + T(N - 1);
    const T b = a + T(0.5);
    const T q = a * b;
    return {s.whole * a, s.half * b, s.sum * q + s.sum_below, s.sum_below * q};
  }
}

// lgamma(x + 1/2) - lgamma(x) - log(x) / 2 for x > 0, and its derivative. For large x they tend to
// -1 / (8 x) and 1 / (8 x^2), and are right to the last digits; a difference of two lgammas would
// lose all digits. Small x are shifted to where Stirling's series holds.
template <typename T>
struct HalfStep {
  T value, slope;
};

template <typename T>
BSL_HD HalfStep<T> log_gamma_half_step(T x) {
  constexpr int n = sizeof(T) == 4 ? 4 : 10;
  const bool small = x < T(n);
  const T c = small ? x : T(1);
  const Steps<T> s = steps<n>(c);
  const T ratio = s.whole / s.half;
  // Gamma(c + 1/2) / Gamma(c) is c ratio times that of c + n.
  const T shift = T(0.5) * math::log(c * (ratio * ratio * (c + T(n))));
  // 1 / (c (c + 1/2)) - 1 / c as one fraction, as both terms are large for a small c.
  const T first = (T(0.5) - c) / (c * (c + T(0.5)));
  const T shift_slope = T(0.5) * (first + (s.sum / s.sum_below + T(1) / (c + T(n))));
  const T inverse = T(1) / (small ? x + T(n) : x);
  const T z = inverse * inverse;
  return {inverse * half_step_series(z) + (small ? shift : T(0)),
          (small ? shift_slope : T(0)) - z * half_step_slope(z)};
}

// --- f(z) = exp(z) E1(z) with the exponential integral E1, for z = u^2 / 2, u >= 0: its logarithm,
// and the excess 1 / f - z. From the excess, f' / f = -excess / z needs no difference.
//
// Below z = 1, E1 = -log z - gamma + z ein_ratio(z). From z = 1 on, the excess is a ratio of
// polynomials in 1 / z with positive coefficients. The largest errors found are 6 eps
// (|log f| + 1) for log f, and 8 eps of itself for the excess. Coefficients come from
// tools/fit_polynomials.py.

BSL_HD float ein_ratio(float z) {
  return math::polynomial(z, z * z, 9.999996e-01f, -2.4999417e-01f, 5.5524144e-02f, -1.0334262e-02f,
                          1.5518713e-03f, -1.47591e-04f);
}
BSL_HD double ein_ratio(double z) {
  return math::polynomial(z, z * z, 9.999999999999907e-01, -2.4999999999958755e-01,
                          5.555555554873878e-02, -1.0416666608004537e-02, 1.6666663643721304e-03,
                          -2.3148047916818237e-04, 2.8342452234113236e-05, -3.0968739315874257e-06,
                          3.028473223169137e-07, -2.5370650443038823e-08, 1.4157373869605049e-09);
}

// The excess at z = 1 / t >= 1.
BSL_HD float exp_e1_ratio(float t) {
  const float t2 = t * t;
  return math::polynomial(t, t2, 1.0f, 1.5046085e+01f, 6.72584e+01f, 1.0112308e+02f, 4.3477932e+01f,
                          2.989884e+00f) /
         math::polynomial(t, t2, 1.0f, 1.6046083e+01f, 8.030466e+01f, 1.4628044e+02f, 8.671564e+01f,
                          1.0772834e+01f);
}
BSL_HD double exp_e1_ratio(double t) {
  const double t2 = t * t;
  return math::polynomial(t, t2, 1.0, 5.082875441823565e+01, 1.02440849018439e+03,
                          1.0644318910178792e+04, 6.220617886292907e+04, 2.0990369281812376e+05,
                          4.057269916159368e+05, 4.3327007918672916e+05, 2.3847282496716667e+05,
                          5.985090440988884e+04, 5.4149769703871125e+03, 9.798834769282585e+01) /
         math::polynomial(t, t2, 1.0, 5.1828754418235484e+01, 1.073237244602713e+03,
                          1.1575069891507175e+04, 7.116431083051865e+04, 2.5707603639023987e+05,
                          5.440322273053526e+05, 6.545813892835432e+05, 4.21469703947544e+05,
                          1.3040346714788093e+05, 1.5828359877276163e+04, 4.65081520321994e+02);
}

// The common part of log f and the excess. `value` is E1(z) below z = 1, the excess from there on.
template <typename T>
struct ExpE1 {
  bool near;
  T z, t, log_u, value;  // t = 1 / z unless near
};

template <typename T>
BSL_HD ExpE1<T> exp_e1(T u) {
  const T z = T(0.5) * u * u;
  const bool near = z < T(1);
  const T log_u = math::log(u);
  const T e1 = (T(0.11593151565841245) - T(2) * log_u) + z * ein_ratio(near ? z : T(1));
  const T t = T(1) / (near ? T(1) : z);
  return {near, z, t, log_u, near ? e1 : exp_e1_ratio(t)};
}

template <typename T>
BSL_HD T log_exp_e1(T u) {
  const ExpE1<T> f = exp_e1(u);
  const T log = math::log(f.near ? f.value : T(1) + f.value * f.t);
  return f.near ? f.z + log : (T(0.6931471805599453) - T(2) * f.log_u) - log;
}

template <typename T>
BSL_HD T exp_e1_excess(T u) {
  const ExpE1<T> f = exp_e1(u);
  // E1 is limited, as it is infinite at 0. The excess is above 0 wherever f is finite.
  const T e1 = f.value < T(1e4) ? f.value : T(1e4);
  const T near = T(1) / (math::exp(f.near ? f.z : T(0)) * e1) - f.z;
  return f.near ? near : f.value;
}

// --- log n! = log Gamma(n + 1) and its derivative digamma(n + 1), for real n >= 0; NaN for n < 0.
//
// Below 3 both are ratios of polynomials. The ratio for log n! is log n! / (n (n - 1)), so that the
// zeros at 0 and 1 are exact. From 3 on both are Stirling's formula, with its remainder as a
// polynomial in 1 / n^2. The largest errors found are 3.5 ulp for log n!, and 4 eps
// (|digamma| + 1) for digamma. Coefficients come from tools/fit_polynomials.py.

// The least n of Stirling's formula.
template <typename T>
constexpr T kStirlingStart = T(3);

BSL_HD float stirling_tail(float z) {
  return math::polynomial(z, z * z, 8.333333e-02f, -2.7774456e-03f, 7.822103e-04f, -4.4161367e-04f);
}
BSL_HD double stirling_tail(double z) {
  return math::polynomial(z, z * z, 8.333333333333194e-02, -2.777777776801831e-03,
                          7.936505913013937e-04, -5.95218664392097e-04, 8.407069003871513e-04,
                          -1.8827690217826432e-03, 5.644670889416201e-03, -1.7768365730598392e-02,
                          4.3542480617627166e-02, -5.5115138948705435e-02);
}

BSL_HD float digamma_tail(float z) {
  return math::polynomial(z, z * z, 8.333329e-02f, -8.329499e-03f, 3.855999e-03f, -2.7817925e-03f);
}
BSL_HD double digamma_tail(double z) {
  return math::polynomial(z, z * z, 8.333333333325674e-02, -8.333333297678196e-03,
                          3.968248184625002e-03, -4.166196475100373e-03, 7.553334159419177e-03,
                          -2.04076308242587e-02, 6.908983391214539e-02, -2.30212684848166e-01,
                          5.716767189832267e-01, -7.172687298140253e-01);
}

// log n! / (n (n - 1)) for 0 <= n <= 3.
BSL_HD float log_factorial_ratio(float n) {
  const float n2 = n * n;
  return math::polynomial(n, n2, 5.772157e-01f, 8.821855e-01f, 4.0193978e-01f, 5.724858e-02f,
                          1.7034721e-03f) /
         math::polynomial(n, n2, 1.0f, 1.9532332e+00f, 1.2569643e+00f, 3.067535e-01f,
                          2.4680775e-02f, 3.8368604e-04f);
}
BSL_HD double log_factorial_ratio(double n) {
  const double n2 = n * n;
  return math::polynomial(n, n2, 5.772156649015329e-01, 1.9184491242955077e+00,
                          2.548286927325571e+00, 1.7353784152841945e+00, 6.475379335561013e-01,
                          1.3154750781364094e-01, 1.3646965700230747e-02, 6.254321107165761e-04,
                          9.052065961151337e-06, 8.282713461111983e-09) /
         math::polynomial(n, n2, 1.0, 3.7485131197664088e+00, 5.738202954998202e+00,
                          4.634627684653762e+00, 2.1337997979878693e+00, 5.661283337563255e-01,
                          8.367193820238951e-02, 6.3357238384179155e-03, 2.0761819767985528e-04,
                          1.97961604047256e-06);
}

// digamma(1 + n) for 0 <= n <= 3.
BSL_HD float digamma_ratio(float n) {
  const float n2 = n * n;
  return math::polynomial(n, n2, -5.772157e-01f, 6.398799e-01f, 1.1532359e+00f, 3.5518143e-01f,
                          2.4748787e-02f, 9.143812e-05f) /
         math::polynomial(n, n2, 1.0f, 1.7412106e+00f, 8.8162196e-01f, 1.4605558e-01f,
                          5.901134e-03f);
}
BSL_HD double digamma_ratio(double n) {
  const double n2 = n * n;
  return math::polynomial(n, n2, -5.772156649015329e-01, 2.995437797166222e-01,
                          1.480725821188618e+00, 1.0877388929428755e+00, 3.369815677418216e-01,
                          4.978787498347838e-02, 3.39705281095009e-03, 9.06091778554862e-05,
                          5.880138311891727e-07) /
         math::polynomial(n, n2, 1.0, 2.330827745919047e+00, 1.994532215381748e+00,
                          8.206131191860141e-01, 1.7517362024131927e-01, 1.924610395705334e-02,
                          1.0010998937565253e-03, 2.0054336847643293e-05, 8.862715068288444e-08);
}

// `n`, or NaN if it is negative. Bits instead of a comparison, as compilers would make a branch.
template <typename T>
BSL_HD T nan_if_negative(T n) {
  n = n + T(0);  // -0 becomes 0
  return math::from_bits(math::bits(n) |
                         (math::mask_of_top_bit(math::bits(n)) & math::bits(math::Real<T>::nan)));
}

// log n! - (n log n - n + log(2 pi n) / 2), n >= 3.
template <typename T>
BSL_HD T stirling_remainder(T n) {
  const T inverse = T(1) / n;
  return inverse * stirling_tail(inverse * inverse);
}

// digamma(1 + n) - log n, n >= 3.
template <typename T>
BSL_HD T digamma_minus_log(T n) {
  const T inverse = T(1) / n;
  return inverse * (T(0.5) - inverse * digamma_tail(inverse * inverse));
}

template <typename T>
BSL_HD T log_factorial(T n) {
  n = nan_if_negative(n);
  const T large =
      (n + T(0.5)) * (math::log(n) - T(1)) + (T(1.4189385332046727) + stirling_remainder(n));
  const T small = n * (n - T(1)) * log_factorial_ratio(n);
  return n < kStirlingStart<T> ? small : large;
}

template <typename T>
BSL_HD T digamma_of_next(T n) {
  n = nan_if_negative(n);
  const T large = math::log(n) + digamma_minus_log(n);
  const T small = digamma_ratio(n);
  return n < kStirlingStart<T> ? small : large;
}

// --- exp(a^2 / 2) P(Z > a) for a standard normal Z and 0 <= a <= 39, from where on exp(-a^2 / 2)
// is 0; to 4 ulp. Coefficients come from tools/fit_polynomials.py.

BSL_HD float normal_tail_ratio(float a) {
  const float a2 = a * a;
  return math::polynomial(a, a2, 5.e-01f, 5.34624e-01f, 2.753903e-01f, 8.207743e-02f,
                          1.4142051e-02f, 1.1609449e-03f) /
         math::polynomial(a, a2, 1.0f, 1.8671325e+00f, 1.5405374e+00f, 7.257181e-01f,
                          2.0864888e-01f, 3.544884e-02f, 2.9100578e-03f);
}
BSL_HD double normal_tail_ratio(double a) {
  const double a2 = a * a;
  return math::polynomial(a, a2, 5.e-01, 7.660685073670114e-01, 5.811960223389051e-01,
                          2.8009535588983175e-01, 9.352682753641127e-02, 2.233911405415787e-02,
                          3.8147619199900298e-03, 4.5039167963101175e-04, 3.358476050762512e-05,
                          1.2203892308042208e-06) /
         math::polynomial(a, a2, 1.0, 2.330021575536887e+00, 2.521480286136302e+00,
                          1.6729916349551317e+00, 7.558637883790839e-01, 2.4383079476050487e-01,
                          5.7118701941847254e-02, 9.646374582726942e-03, 1.1320235812913092e-03,
                          8.418451028160281e-05, 3.0590621520065793e-06);
}

// The distribution function of a standard normal number, and its density.
template <typename T>
struct Normal {
  T share, density;
};

template <typename T>
BSL_HD Normal<T> normal(T x) {
  const T a = math::abs(x);
  const T e = math::exp_minus_abs(T(0.5) * a * a);
  const T tail = normal_tail_ratio(a < T(39) ? a : T(39)) * e;
  return {x < T(0) ? tail : T(1) - tail, T(0.39894228040143268) * e};
}

// --- Modified Bessel functions I0 and I1 of k >= 0: log(exp(-k) I0(k)), and the spread
// 1 - I1(k) / I0(k), which is 1 / (2 k) for large k.
//
// Below 8 they are a polynomial in k^2 / 4 and a ratio of polynomials in k, from there on
// polynomials in 1 / k. The largest errors found are 4 eps (|log| + 1), and 12 eps of the spread.
// Coefficients come from tools/fit_polynomials.py.

BSL_HD float bessel_near(float y) {
  return math::polynomial(y, y * y, 1.0f, 1.0000002e+00f, 2.499992e-01f, 2.7778804e-02f,
                          1.7355043e-03f, 6.963709e-05f, 1.8937935e-06f, 4.3158565e-08f,
                          3.8113204e-10f, 1.4984375e-11f);
}
BSL_HD double bessel_near(double y) {
  return math::polynomial(y, y * y, 1.0, 9.999999999999972e-01, 2.500000000000196e-01,
                          2.777777777772559e-02, 1.736111111180258e-03, 6.944444439150292e-05,
                          1.9290123712365413e-06, 3.9367590676333614e-08, 6.15120551591809e-10,
                          7.593775730333266e-12, 7.597160749638906e-14, 6.252232618913336e-16,
                          4.483495003301233e-18, 2.1560209097733767e-20, 2.125957878683421e-22);
}

// sqrt(2 pi k) exp(-k) I0(k) at k = 1 / t.
BSL_HD float bessel_far(float t) {
  return math::polynomial(t, t * t, 1.0f, 1.2497907e-01f, 7.150637e-02f, 5.0287835e-02f,
                          2.7382123e-01f);
}
BSL_HD double bessel_far(double t) {
  return math::polynomial(
      t, t * t, 1.0000000000000002e+00, 1.2499999999924671e-01, 7.0312500556261e-02,
      7.32420453658329e-02, 1.1216368079868523e-01, 2.2835272786116845e-01, 1.869148047104635e-01,
      4.524481347546356e+01, -2.991175421003677e+03, 1.4213184265238952e+05, -4.888204419529514e+06,
      1.2540568840904559e+08, -2.4340596441871443e+09, 3.594040637485253e+10,
      -4.0291015319614233e+11, 3.3967730220650366e+12, -2.1134665528143516e+13,
      9.395270651977334e+13, -2.819520706515479e+14, 5.114988035314342e+14, -4.236230651535107e+14);
}

BSL_HD float bessel_spread_near(float k) {
  const float k2 = k * k;
  return math::polynomial(k, k2, 1.0f, -1.9451556e-01f, 1.1339788e-01f, -5.89638e-05f,
                          2.5028219e-03f, 1.8777975e-04f, 2.6667436e-05f) /
         math::polynomial(k, k2, 1.0f, 3.054846e-01f, 2.6613814e-01f, 7.0520714e-02f,
                          1.8642742e-02f, 3.3333565e-03f, 4.3089237e-04f, 5.2031282e-05f);
}
BSL_HD double bessel_spread_near(double k) {
  const double k2 = k * k;
  return math::polynomial(k, k2, 1.0, -3.0184200701675307e-01, 1.4882036434683882e-01,
                          -1.530970031292914e-02, 4.223932308970332e-03, -1.0522971846608481e-04,
                          4.012921432818464e-05, 8.693656788745512e-07, 1.628471009875483e-07,
                          5.887442395721215e-09, 2.0655552252613947e-10) /
         math::polynomial(k, k2, 1.0, 1.9815799298324732e-01, 2.4789936083844882e-01,
                          4.613998010647705e-02, 1.4909047799511318e-02, 2.2722508006232374e-03,
                          3.5665160483041935e-04, 3.9300130263946195e-05, 3.6469463824787008e-06,
                          2.5580098548713233e-07, 1.3050111062426485e-08, 3.998905542090676e-10);
}

// 2 k times the spread at k = 1 / t.
BSL_HD float bessel_spread_far(float t) {
  return math::polynomial(t, t * t, 1.0f, 2.4998868e-01f, 2.514315e-01f, 3.2385477e-01f,
                          2.2451458e+00f, -1.2561959e+01f, 6.752122e+01f);
}
BSL_HD double bessel_spread_far(double t) {
  return math::polynomial(t, t * t, 1.0000000000000004e+00, 2.4999999999673445e-01,
                          2.500000049888364e-01, 3.9062197378407976e-01, 8.134712465677014e-01,
                          1.9051567217018324e+00, 3.1336150908329525e+01, -2.2679117508735803e+03,
                          1.541911986615446e+05, -7.775030132840108e+06, 2.9926853060951114e+08,
                          -8.86687020030889e+09, 2.0250192521913992e+11, -3.5321625135844375e+12,
                          4.5739589961007445e+13, -4.060458584995958e+14, 1.7540011071214248e+15,
                          1.1221460048160524e+16, -2.847738605470561e+17, 2.794778669721443e+18,
                          -1.731855727144761e+19, 7.2223655671877706e+19, -1.98213212428573e+20,
                          3.2550582207459295e+20, -2.4337022489848683e+20);
}

template <typename T>
BSL_HD T log_bessel(T k) {
  const bool near = k < T(8);
  const T c = near ? k : T(0);
  const T t = T(1) / (near ? T(8) : k);
  const T half = T(0.5) * c;
  const T log = math::log(near ? bessel_near(half * half) : t * T(0.15915494309189535));
  return near ? log - c : T(0.5) * log + math::log(bessel_far(t));
}

template <typename T>
BSL_HD T bessel_spread(T k) {
  const bool near = k < T(8);
  const T t = T(1) / (near ? T(8) : k);
  const T far = T(0.5) * t * bessel_spread_far(t);
  return near ? bessel_spread_near(near ? k : T(0)) : far;
}

}  // namespace special
}  // namespace
}  // namespace bsl
