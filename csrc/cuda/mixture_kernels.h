// From the density of a component to the kernels of a mixture, as in cpu/mixture_kernels.h.
#pragma once

#include "cuda/mixture.h"

namespace bsl {
namespace {

template <typename T, typename Density>
class DensityMap : public ElementMap<3, 1, kMaxComponents, false> {
 public:
  __device__ DensityMap(const ElementCall& a, const BlockRows<T>& rows)
      : m_(a, rows), joint_(m_.scratch[0]) {
    for (int k = 0; k < m_.n; ++k) {
      joint_[k] = m_.logit[k] + Density::forward(m_.numbers, m_.x, m_.loc[k], m_.log_scale[k]).log;
      prior_sum_.look_at(m_.logit[k]);
      joint_sum_.look_at(joint_[k]);
    }
    prior_sum_.seen_all();
    joint_sum_.seen_all();
    for (int k = 0; k < m_.n; ++k) {
      prior_sum_.add(m_.logit[k]);
      joint_sum_.add(joint_[k]);
    }
    prior_sum_.added_all();
    joint_sum_.added_all();
    log_prob_ = (joint_sum_.max - prior_sum_.max) + (joint_sum_.log - prior_sum_.log);
    if (joint_sum_.sum == T(0)) find_nearest();
  }

  __device__ Result<T> map() const { return {T(0), log_prob_}; }

  __device__ T gradients(T, T grad) {
    T by_x = 0;
    for (int k = 0; k < m_.n; ++k) {
      const T share = joint_sum_.share(joint_[k]);
      const Gradients<T, 3> g = Density::backward(m_.numbers, Result<T>{T(0), grad * share}, m_.x,
                                                  m_.loc[k], m_.log_scale[k]);
      by_x += g.of[0];
      m_.loc[k] = g.of[1];
      m_.log_scale[k] = g.of[2];
      m_.logit[k] = grad * (share - prior_sum_.share(m_.logit[k]));
    }
    return by_x;
  }

 private:
  __device__ void find_nearest() {
    const auto distance = [&](int k) {
      return Density::log_distance(m_.numbers, m_.x, m_.loc[k], m_.log_scale[k]);
    };
    const T least = m_.least_distance(distance);
    for (int k = 0; k < m_.n; ++k) joint_[k] = m_.log_weight(k, distance(k), least);
    joint_sum_ = softmax_of<T>(m_.n, [&](int k) { return joint_[k]; });
  }

  Mixture<T> m_;
  T* joint_;
  Softmax<T> prior_sum_, joint_sum_;
  T log_prob_;
};

template <typename Density>
struct DensityOf {
  template <typename T>
  using Map = DensityMap<T, Density>;
};

template <typename Density>
constexpr RowKernels mixture_kernels() {
  return element_kernels<DensityOf<Density>::template Map>();
}

}  // namespace
}  // namespace bsl
