// The kernels of log sum_k softmax(logits)_k P_k(x), made from the density of a component
// (core/rows.h):
//
//   namespace BSL_ISA {
//   extern const RowKernels foo_mixture_log_prob_kernels = mixture_kernels<foo::Density>();
//   }
#pragma once

#include "cpu/mixture.h"

namespace bsl {
namespace {

template <typename T, typename Density>
class DensityTile : public MixtureTile<T, false> {
 public:
  using MixtureTile<T, false>::MixtureTile;

  void map(T*, T* log_prob) {
    weigh_components();
    for (int t = 0; t < kRows; ++t) {
      log_prob[t] = (joint_max_[t] - prior_max_[t]) + (log_joint_[t] - log_prior_[t]);
    }
  }

  void gradients(const T*, const T* grad, T* by_x) {
    weigh_components();
    // Arrays of its own: what the caller's pointers reach could be anything, and no loop would be
    // vectorised.
    alignas(64) T sums[kRows] = {}, incoming[kRows];
    for (int t = 0; t < kRows; ++t) incoming[t] = grad[t];
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const T share = joint_[i] / joint_sum_[t];
        const Gradients<T, 3> g = Density::backward(numbers_, Result<T>{T(0), incoming[t] * share},
                                                    x_[t], loc_[i], log_scale_[i]);
        sums[t] += g.of[0];
        by_loc_[i] = g.of[1];
        by_scale_[i] = g.of[2];
        by_logit_[i] = incoming[t] * (share - prior_[i] / prior_sum_[t]);
      }
    }
    for (int t = 0; t < kRows; ++t) by_x[t] = sums[t];
  }

 private:
  using Base = MixtureTile<T, false>;
  using Base::by_loc_;
  using Base::by_logit_;
  using Base::by_scale_;
  using Base::loc_;
  using Base::log_scale_;
  using Base::logit_;
  using Base::n_;
  using Base::numbers_;
  using Base::x_;

  void weigh_components() {
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        prior_[i] = logit_[i];
        joint_[i] = logit_[i] + Density::forward(numbers_, x_[t], loc_[i], log_scale_[i]).log;
      }
    }
    this->weigh(prior_, prior_max_, prior_sum_, log_prior_);
    this->weigh(joint_, joint_max_, joint_sum_, log_joint_);
    this->weigh_nearest(joint_, joint_sum_, [&](int i) {
      return Density::log_distance(numbers_, x_[i % kRows], loc_[i], log_scale_[i]);
    });
  }

  // exp(logit) and exp(logit) P_k(x), up to a factor that a row has in common.
  alignas(64) Rows<T> prior_, joint_;
  alignas(64) T prior_max_[kRows], joint_max_[kRows];
  alignas(64) T prior_sum_[kRows], joint_sum_[kRows], log_prior_[kRows], log_joint_[kRows];
};

template <typename Density>
struct DensityOf {
  template <typename T>
  using Tile = DensityTile<T, Density>;
};

template <typename Density>
constexpr RowKernels mixture_kernels() {
  return element_kernels<DensityOf<Density>::template Tile>();
}

}  // namespace
}  // namespace bsl
