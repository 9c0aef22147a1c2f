// A normal distribution of n numbers with a full covariance: loc + L e, with e standard normal.
//
// L is lower triangular, with scales on its diagonal. Its determinant is their product. So the
// divergence from independent normals with one loc m and one scale s is
//   sum_i KL(N(loc_i, L_ii) || N(m, s)) + sum_{j<i} (L_ij / s)^2 / 2.
#pragma once

#include "core/distributions/normal.h"
#include "core/pointwise.h"
#include "core/product.h"

namespace bsl {
namespace {
namespace multivariate_normal {

// A number of L's diagonal, and its part of the divergence.
template <typename T>
struct Diagonal {
  T scale, kl;
};

template <Parametrization P, typename T>
BSL_HD Diagonal<T> diagonal(T loc, T raw, const normal::Prior<T>& prior) {
  const T scale = scale_of<P>(raw);
  return {scale, normal::kl<P>(loc, raw, scale, prior)};
}

// The gradients of loc and raw scale, from those of a sample, of the scale through samples, and of
// the divergence. A gradient that did not arrive is 0.
template <Parametrization P, typename T>
BSL_HD Gradients<T, 2> backward(T by_sample, T by_scale, T by_kl, T loc, T raw,
                                const normal::Prior<T>& prior) {
  const T scale = scale_of<P>(raw);
  const T slope = scale_grad<P>(raw);
  return {{by_sample + product(by_kl, normal::kl_grad_loc(loc, prior)),
           product(by_scale, slope) +
               product(by_kl, normal::kl_grad_raw<P>(raw, scale, slope, prior))}};
}

}  // namespace multivariate_normal
}  // namespace
}  // namespace bsl
