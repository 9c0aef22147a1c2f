// Maps that move each row z along one direction: planar and radial flows.
//
// A kernel takes the dot products of a row; what is here makes of them the coefficients by which
// rows are added up, the log-determinant, and the same for gradients.
//
//   planar: y = z + v tanh(w z + b), with v = u + k w so that w v = m = softplus(w u) - 1 > -1,
//           hence k = (m - w u) / (w w); det = 1 + m / cosh^2
//   radial: y = z + c (z - z0), c = beta / (alpha + r), r = |z - z0|, alpha = softplus(raw_alpha),
//           beta = softplus(raw_beta) - alpha; det = (1 + c)^(D - 1) (1 + c alpha / (alpha + r))
//
// Determinants are written as sums of positive terms where they are small: Rezende and Mohamed,
// "Variational inference with normalizing flows" (2015), appendix A, has them as differences.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {

// log of a positive number that is 1 + `less_one`: each where it is accurate.
template <typename T>
BSL_HD T log_near_one(T less_one, T whole) {
  const T near = math::log1p(less_one), far = math::log(whole);
  return less_one < T(-0.5) ? far : near;
}

namespace planar {

// Of one row.
template <typename T>
struct Map {
  T t, s, m, slope;  // tanh, 1 / cosh^2, and m with its derivative by w u
  T k, det;
};

// a = w z + b. Without a direction (w = 0) u is taken as it is, and volumes are kept.
template <typename T>
BSL_HD Map<T> map(T a, T wu, T ww) {
  const T e = math::exp_minus_abs(T(2) * a);
  const T root = math::plain_quotient(T(2), T(1) + e);
  const T s = e * root * root;
  const T t = math::tanh(a);
  const bool none = ww == T(0);
  const T soft = math::softplus(wu);
  const T m = none ? wu : soft - T(1);
  const T k = (m - wu) / (none ? T(1) : ww);
  const T det = none ? T(1) + m * s : t * t + soft * s;
  return {t, s, m, none ? T(1) : math::sigmoid(wu), k, det};
}

template <typename T>
BSL_HD T log_det(const Map<T>& p) {
  return log_near_one(p.m * p.s, p.det);
}

// Of a loss: by a, by w u, and twice that by w w. gu and gw are the products of y's gradient with
// u and w, grad_log is that of the log-determinant.
template <typename T>
struct Gradients {
  T a, wu, twice_ww;
};

template <typename T>
BSL_HD Gradients<T> gradients(const Map<T>& p, T wu, T ww, T gu, T gw, T grad_log) {
  const bool none = ww == T(0);
  const T inverse = T(1) / (none ? T(1) : ww);
  const T by_log = grad_log * (p.s / p.det);
  const T by_k = none ? T(0) : p.t * gw;
  // d m / d (w u) - 1 = -sigmoid(-w u)
  const T rest = none ? T(0) : -math::sigmoid(-wu);
  return {(gu + p.k * gw) * p.s - T(2) * (p.m * p.t) * by_log,
          by_k * (rest * inverse) + by_log * p.slope, T(-2) * (by_k * p.k) * inverse};
}

}  // namespace planar

namespace radial {

template <typename T>
struct Map {
  T r, h, alpha, c, part;  // h = 1 / (alpha + r), part = alpha h
  T det, last;             // 1 + c, and 1 + c alpha h
};

template <typename T>
BSL_HD Map<T> map(T r, T raw_alpha, T raw_beta) {
  const T alpha = math::softplus(raw_alpha), total = math::softplus(raw_beta);
  const T h = T(1) / (alpha + r);
  return {r,
          h,
          alpha,
          (total - alpha) * h,
          alpha * h,
          (total + r) * h,
          (r * h) * ((r + T(2) * alpha) * h) + (alpha * h) * (total * h)};
}

// `others` is D - 1.
template <typename T>
BSL_HD T log_det(const Map<T>& p, T others) {
  const T log = log_near_one(p.c, p.det);
  return (others == T(0) ? T(0) : others * log) + log_near_one(p.c * p.part, p.last);
}

// Of a loss: by z - z0 (a factor of it), raw_alpha and raw_beta. `along` is the product of y's
// gradient with z - z0.
template <typename T>
struct Gradients {
  T along, raw_alpha, raw_beta;
};

template <typename T>
BSL_HD Gradients<T> gradients(const Map<T>& p, T others, T raw_alpha, T raw_beta, T along,
                              T grad_log) {
  const T by_c = along + grad_log * (others / p.det + p.part / p.last);
  const T by_part = grad_log * p.c / p.last;
  const T by_h = by_c * p.c * p.h;
  const T by_r = -by_h - by_part * p.part * p.h;
  // beta is softplus(raw_beta) - alpha: by alpha, c moves by -(1 + c) h in all.
  const T by_alpha = by_part * p.h * (p.r * p.h) - by_c * (p.det * p.h);
  return {p.r > T(0) ? by_r / p.r : (p.r == T(0) ? T(0) : p.r), by_alpha * math::sigmoid(raw_alpha),
          by_c * p.h * math::sigmoid(raw_beta)};
}

}  // namespace radial
}  // namespace
}  // namespace bsl
