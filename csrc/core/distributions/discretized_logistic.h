// The logistic distribution on evenly spaced values: the probability of the bin around x.
//
// With bins of width 2 h and the scale s = exp(raw), a = (x - loc + h) / s and b = (x - loc - h) /
// s are the edges of the bin, and
//
//   log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(-(a - b))),
//
// none of which cancel. The first bin reaches to -infinity, the last one to +infinity: one term.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"
#include "core/product.h"

namespace bsl {
namespace {
namespace discretized_logistic {

// a - b = `width` and what it comes to; exp(-width), 1 - exp(-width).
template <typename T>
struct Bin {
  T a, b, width, kept, lost;
  T half;  // exp(-raw / 2): the scale itself may overflow where quotients do not
  bool first, last, narrow;
};

// 0 where a condition holds. In bits, as compilers make branches of several selects by one.
template <typename T>
BSL_HD T unless(bool condition, T value) {
  using Bits = typename math::Real<T>::Bits;
  return math::from_bits(math::bits(value) & (condition ? Bits(0) : ~Bits(0)));
}

// up + down, and what rounding lost of it; 0 where that is not finite.
template <typename T>
BSL_HD T sum_of(T x, T y, T rest) {
  const T sum = x + y;
  const T part = sum - x;
  const T lost = ((x - (sum - part)) + (y - part)) + rest;
  return sum + (lost == lost ? lost : T(0));
}

template <typename T>
BSL_HD Bin<T> bin(const Numbers<T>& numbers, T x, T loc, T raw) {
  using R = math::Real<T>;
  // h is not a float: at[3] is what float32 lost of it.
  const T h = numbers.at[0], h_low = sizeof(T) == 4 ? numbers.at[3] : T(0);
  constexpr T most = T(1) / R::min_normal;
  const T root = math::exp(T(-0.5) * raw);
  const T half = root > most ? most : root;  // finite: an edge may be at loc
  const T t = x - loc;
  const T part = t - x;
  const T lost = (x - (t - part)) - (loc + part);
  Bin<T> r;
  r.half = half;
  r.a = sum_of(t, h, lost + h_low) * half * half;
  r.b = sum_of(t, -h, lost - h_low) * half * half;
  r.width = T(2) * h * half * half;
  r.first = x < numbers.at[1];
  r.last = x > numbers.at[2];
  // Where width^2 is nothing beside 1.
  r.narrow = r.width < (sizeof(T) == 4 ? T(1e-4) : T(1e-9));
  T y = -r.width;
  y = y < R::exp_min ? R::exp_min : y;
  const math::ExpReduction<T> reduced = math::exp_reduce(y);
  r.kept = math::scale_by_power(math::exp_of_reduced(reduced.r, reduced.r_low), reduced.n);
  // 1 - 2^n (1 + p): for the few n of which p is needed, 2^n is a normal number.
  const T p = reduced.r + (reduced.r * reduced.r * math::exp_tail(reduced.r) + reduced.r_low);
  const T power = math::from_bits(typename R::Bits(reduced.n + R::bias) << R::mantissa);
  r.lost = r.width > T(2) ? T(1) - r.kept : (T(1) - power) - power * p;
  return r;
}

// log(1 - exp(-width)).
template <typename T>
BSL_HD T log_lost(const Numbers<T>& numbers, const Bin<T>& bin, T raw) {
  const bool much = bin.kept < T(0.25);
  const math::LogReduction<T> reduced = math::log_reduce(bin.lost, T(0));
  const T log =
      math::log_of_reduced(much ? T(0) : reduced.e, much ? -bin.kept : reduced.m - T(1), T(0));
  const T log_width = math::log(T(2) * numbers.at[0]) - raw;
  return bin.narrow ? log_width - T(0.5) * bin.width : log;
}

struct LogProb : Pointwise<3, kLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T x, T loc, T raw) {
    const Bin<T> r = bin(numbers, x, loc, raw);
    const T above = unless(r.last, math::softplus(-r.a));
    const T below = unless(r.first, math::softplus(r.b));
    const T inside = unless(r.first, unless(r.last, log_lost(numbers, r, raw)));
    return {T(0), inside - (above + below)};
  }

  // By x: (sigmoid(-a) - sigmoid(b)) / s; by raw: b sigmoid(b) - a sigmoid(-a) - w / (exp(w) - 1).
  template <typename T>
  BSL_HD static Gradients<T, 3> backward(const Numbers<T>& numbers, Result<T> grad, T x, T loc,
                                         T raw) {
    const Bin<T> r = bin(numbers, x, loc, raw);
    const T above = unless(r.last, math::sigmoid(-r.a));
    const T below = unless(r.first, math::sigmoid(r.b));
    const T by_x = grad.log * (above - below) * r.half * r.half;
    // 0 where far from that edge.
    const T by_a = product(above, r.a), by_b = product(below, r.b);
    const T wide = r.kept == T(0) ? T(0) : r.width * (r.kept / r.lost);
    const T by_width = r.narrow ? T(1) - T(0.5) * r.width : wide;
    const T by_raw = (by_b - by_a) - unless(r.first, unless(r.last, by_width));
    return {{by_x, -by_x, product(grad.log, by_raw)}};
  }
};

// log|a| or log|b|. It says which is the nearest of components so far away that their log
// probabilities are -infinity.
template <typename T>
BSL_HD T log_distance(const Numbers<T>& numbers, T x, T loc, T raw) {
  const T h = T(0.5) * numbers.at[0];
  return math::log(math::abs(T(0.5) * x - T(0.5) * loc) - h) - raw;
}

}  // namespace discretized_logistic
}  // namespace
}  // namespace bsl
