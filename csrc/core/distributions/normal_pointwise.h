// Normal samples and their KL divergence as pointwise ops.
#pragma once

#include "core/distributions/location_scale.h"
#include "core/distributions/normal.h"
#include "core/distributions/normal_log_prob.h"
#include "core/pointwise.h"

namespace bsl {
namespace {
namespace normal {

template <Parametrization P>
using Rsample = location_scale::Rsample<P, Base>;

template <typename T>
BSL_HD Prior<T> prior(T loc, T scale) {
  return {loc, T(1) / scale, math::log(scale)};
}

// Which of loc, raw scale, and the prior's loc and scale are outside their domain.
template <Parametrization P, typename T>
BSL_HD int invalid_scales(T raw, T prior_scale) {
  return (P == Parametrization::scale && raw < T(0) ? 2 : 0) | (prior_scale < T(0)) << 3;
}

// loc, raw scale, and the prior's loc and scale.
template <Parametrization P>
struct Kl : Pointwise<4, kLog> {
  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T raw, T, T prior_scale) {
    return invalid_scales<P>(raw, prior_scale);
  }

  static constexpr bool prepares_forward = P == Parametrization::softplus;
  template <typename T>
  BSL_HD static T prepare(T, T raw, T, T) {
    return kIsLog<P> ? T(0) : scale_of<P>(raw);
  }

  template <typename T>
  BSL_HD static Result<T> forward_from(const Numbers<T>&, T loc, T raw, T prior_loc, T prior_scale,
                                       T scale) {
    return {T(0), kl<P>(loc, raw, scale, prior(prior_loc, prior_scale))};
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T loc, T raw, T prior_loc,
                                  T prior_scale) {
    const T scale = prepare(loc, raw, prior_loc, prior_scale);
    return forward_from(numbers, loc, raw, prior_loc, prior_scale, scale);
  }

  template <typename T>
  BSL_HD static Gradients<T, 4> backward(const Numbers<T>&, Result<T> grad, T loc, T raw,
                                         T prior_loc, T prior_scale) {
    const Prior<T> p = prior(prior_loc, prior_scale);
    const T scale = kIsLog<P> ? T(0) : scale_of<P>(raw);
    const T slope = kIsLog<P> ? T(0) : scale_grad<P>(raw);
    const T by_loc = grad.log * kl_grad_loc(loc, p);
    return {{by_loc, grad.log * kl_grad_raw<P>(raw, scale, slope, p), -by_loc,
             grad.log * kl_grad_prior_scale<P>(loc, raw, scale, p)}};
  }
};

template <Parametrization P>
struct RsampleKl : Pointwise<4, kValueAndLog, Noise::normal> {
  using Further = Rsample<P>;

  static constexpr bool checks = true;
  template <typename T>
  BSL_HD static int invalid(T, T raw, T, T prior_scale) {
    return invalid_scales<P>(raw, prior_scale);
  }

  static constexpr bool prepares_forward = P == Parametrization::softplus;
  template <typename T>
  BSL_HD static T prepare(T, T raw, T, T) {
    return scale_of<P>(raw);
  }

  template <typename T>
  BSL_HD static Result<T> forward_from(const Numbers<T>& numbers, T loc, T raw, T prior_loc,
                                       T prior_scale, T noise, T scale) {
    return {Rsample<P>::forward_from(numbers, loc, raw, noise, scale).value,
            Kl<P>::forward_from(numbers, loc, raw, prior_loc, prior_scale, scale).log};
  }

  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T loc, T raw, T prior_loc,
                                  T prior_scale, T noise) {
    const T scale = prepare(loc, raw, prior_loc, prior_scale);
    return forward_from(numbers, loc, raw, prior_loc, prior_scale, noise, scale);
  }

  template <typename T>
  BSL_HD static Gradients<T, 4> backward(const Numbers<T>& numbers, Result<T> grad, T loc, T raw,
                                         T prior_loc, T prior_scale, T noise) {
    const Gradients<T, 2> sample = Rsample<P>::backward(numbers, grad, loc, raw, noise);
    Gradients<T, 4> g = Kl<P>::backward(numbers, grad, loc, raw, prior_loc, prior_scale);
    g.of[0] += sample.of[0];
    g.of[1] += sample.of[1];
    return g;
  }
};

// Either of these with a prior's loc and scale that are numbers, the first two of the call's: what
// is made of them is made once. The numbers are valid.
template <typename Op>
struct FixedPrior : Pointwise<2, Op::results, Op::noise> {
  using Further = typename Op::Further;

  static constexpr bool checks = Op::checks;
  template <typename T>
  BSL_HD static int invalid(T loc, T raw) {
    return Op::invalid(loc, raw, T(0), T(1));
  }

  static constexpr bool prepares_forward = Op::prepares_forward;
  template <typename T>
  BSL_HD static T prepare(T loc, T raw) {
    return Op::prepare(loc, raw, T(0), T(1));
  }

  // `rest`: the noise, if there is any, and what was prepared.
  template <typename T, typename... Rest>
  BSL_HD static Result<T> forward_from(const Numbers<T>& numbers, T loc, T raw, Rest... rest) {
    return Op::forward_from(numbers, loc, raw, numbers.at[0], numbers.at[1], rest...);
  }

  template <typename T, typename... E>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T loc, T raw, E... noise) {
    return Op::forward(numbers, loc, raw, numbers.at[0], numbers.at[1], noise...);
  }

  template <typename T, typename... E>
  BSL_HD static Gradients<T, 2> backward(const Numbers<T>& numbers, Result<T> grad, T loc, T raw,
                                         E... noise) {
    const Gradients<T, 4> g =
        Op::backward(numbers, grad, loc, raw, numbers.at[0], numbers.at[1], noise...);
    return {{g.of[0], g.of[1]}};
  }
};

template <Parametrization P>
using KlFixedPrior = FixedPrior<Kl<P>>;
template <Parametrization P>
using RsampleKlFixedPrior = FixedPrior<RsampleKl<P>>;

}  // namespace normal
}  // namespace
}  // namespace bsl
