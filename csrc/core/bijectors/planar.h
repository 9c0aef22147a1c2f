// Planar maps, which move each row z along one direction:
//
//   y = z + v tanh(w z + b), with v = u + k w so that w v = m = softplus(w u) - 1 > -1, hence
//   k = (m - w u) / (w w); det = 1 + m / cosh^2
//
// A kernel takes the dot products of a row; what is here makes of them the coefficients by which
// rows are added up, the log-determinant, and the same for gradients. Determinants are written as
// sums of positive terms where they are small: Rezende and Mohamed, "Variational inference with
// normalizing flows" (2015), appendix A, has them as differences.
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
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
  return math::log_near_one(p.m * p.s, p.det);
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

}  // namespace
}  // namespace bsl
