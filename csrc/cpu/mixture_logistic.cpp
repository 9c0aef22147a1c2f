// y = logit F(x), F being the distribution function of a mixture of logistic distributions, and its
// inverse. F and 1 - F are two sums of their own, so that both tails keep their digits:
//
//   y = log F - log(1 - F),  dy/dx = f / (F (1 - F)).
#include "core/bijectors/mixture_logistic.h"

#include "cpu/mixture_kernels.h"

namespace bsl {
namespace {

namespace logistic = mixture_logistic;

template <typename T, bool kInverse>
class LogisticTile : public MixtureTile<T> {
 public:
  using MixtureTile<T>::MixtureTile;

  void map(T* y, T* log_det) {
    find_point();
    place();
    find_density();
    for (int t = 0; t < kRows; ++t) {
      y[t] = kInverse ? x_[t] : y_[t];
      log_det[t] = kInverse ? -log_slope_[t] : log_slope_[t];
    }
  }

  void gradients(const T* grad_y, const T* grad_log_det, T* by_x) {
    find_point();
    place();
    find_density();
    alignas(64) T from_y[kRows], from_log[kRows];
    alignas(64) logistic::Sides<T> mixture[kRows];
    for (int t = 0; t < kRows; ++t) {
      from_y[t] = grad_y[t];
      from_log[t] = grad_log_det[t];
      const T e = math::exp_minus_abs(y_[t]);
      mixture[t] = logistic::sides(y_[t], e);
    }
    if (kInverse) {
      // The result solves y = g(x; parameters), so dx = (dy - dg) / g'(x); and the logarithm is
      // that of 1 / g' at this x.
      alignas(64) T log_by_x[kRows] = {};
      for (int k = 0; k < n_; ++k) {
        const int row = k * kRows;
        for (int t = 0; t < kRows; ++t) {
          log_by_x[t] += slopes(row + t, t, mixture[t]).log_by_z * root_[row + t] * root_[row + t];
        }
      }
      for (int t = 0; t < kRows; ++t) {
        const T at_x = grad_y[t] - grad_log_det[t] * log_by_x[t];
        from_y[t] = -at_x * math::exp(-log_slope_[t]);
        from_log[t] = -grad_log_det[t];
      }
    }
    for (int t = 0; t < kRows; ++t) by_x[t] = kInverse ? -from_y[t] : T(0);
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const logistic::Slopes<T> s = slopes(i, t, mixture[t]);
        const logistic::ComponentGradients<T> g = logistic::component_gradients(
            from_y[t], from_log[t], s, z_[i], root_[i], below_[i] / below_sum_[t],
            above_[i] / above_sum_[t], density_[i] / density_sum_[t]);
        if (!kInverse) by_x[t] += g.position;
        by_logit_[i] = g.logit;
        by_loc_[i] = -g.position;
        by_scale_[i] = g.log_scale;
      }
    }
  }

 private:
  using Base = MixtureTile<T>;
  using Base::by_loc_;
  using Base::by_logit_;
  using Base::by_scale_;
  using Base::loc_;
  using Base::log_scale_;
  using Base::logit_;
  using Base::n_;
  using Base::x_;

  void find_point() {
    for (int i = 0; i < n_ * kRows; ++i) root_[i] = logistic::root_of_rate(log_scale_[i]);
    if (kInverse) solve();
  }

  // What the components and their sums come to at x.
  void place() {
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const logistic::Component<T> c = logistic::component(x_[t], loc_[i], root_[i]);
        z_[i] = c.z;
        e_[i] = c.e;
        tail_[i] = c.tail;
        below_[i] = logit_[i] + logistic::log_cdf(c.z, c.tail);
        above_[i] = logit_[i] + logistic::log_survival(c.z, c.tail);
      }
    }
    this->weigh(below_, below_max_, below_sum_, log_below_);
    this->weigh(above_, above_max_, above_sum_, log_above_);
    for (int t = 0; t < kRows; ++t) {
      y_[t] = (below_max_[t] - above_max_[t]) + (log_below_[t] - log_above_[t]);
    }
  }

  // log dy/dx = log sum f_k / F - log(1 - F).
  void find_density() {
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        density_[i] = logistic::log_density(logit_[i], z_[i], tail_[i], log_scale_[i], y_[t],
                                            logistic::LogSum<T>{below_max_[t], log_below_[t]},
                                            logistic::LogSum<T>{above_max_[t], log_above_[t]});
      }
    }
    alignas(64) T max[kRows];
    this->weigh(density_, max, density_sum_, log_slope_);
    for (int t = 0; t < kRows; ++t) {
      log_slope_[t] = (max[t] + log_slope_[t]) + math::softplus(-math::abs(y_[t]));
    }
  }

  logistic::Slopes<T> slopes(int i, int t, const logistic::Sides<T>& mixture) const {
    return logistic::slopes(logistic::sides(z_[i], e_[i]), mixture, below_[i] / below_sum_[t],
                            above_[i] / above_sum_[t], density_[i] / density_sum_[t]);
  }

  // Where every component takes y at or beyond a point, so does their mixture: the least and the
  // largest loc + scale y hold x between them.
  void solve() {
    alignas(64) T wanted[kRows], low[kRows], high[kRows], last[kRows], total[kRows], slope[kRows];
    alignas(64) T moves[kRows];
    for (int t = 0; t < kRows; ++t) {
      wanted[t] = x_[t];
      low[t] = high[t] = total[t] = loc_[t] + math::exp(log_scale_[t]) * wanted[t];
      moves[t] = T(1);
    }
    for (int k = 1; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const T bound = loc_[row + t] + math::exp(log_scale_[row + t]) * wanted[t];
        low[t] = bound < low[t] ? bound : low[t];
        high[t] = bound > high[t] ? bound : high[t];
        total[t] += bound;
      }
    }
    for (int t = 0; t < kRows; ++t) {
      last[t] = high[t] - low[t];
      x_[t] = low[t] + T(0.5) * last[t];
    }
    T moving = T(1);
    for (int step = 0; step < logistic::kMaxSteps && moving > T(0); ++step) {
      place();
      for (int t = 0; t < kRows; ++t) slope[t] = T(0);
      for (int k = 0; k < n_; ++k) {
        const int row = k * kRows;
        for (int t = 0; t < kRows; ++t) {
          const int i = row + t;
          const logistic::Sides<T> own = logistic::sides(z_[i], e_[i]);
          slope[t] +=
              (below_[i] / below_sum_[t] * own.above + above_[i] / above_sum_[t] * own.below) *
              root_[i] * root_[i];
        }
      }
      moving = T(0);
      for (int t = 0; t < kRows; ++t) {
        const bool active = moves[t] > T(0);
        const logistic::SearchStep<T> next =
            logistic::step(logistic::Search<T>{x_[t], low[t], high[t], last[t]}, wanted[t],
                           wanted[t] - y_[t], slope[t]);
        low[t] = active ? next.search.low : low[t];
        high[t] = active ? next.search.high : high[t];
        last[t] = next.search.last;
        x_[t] = active ? next.search.x : x_[t];
        const bool more = active & next.more;
        moves[t] = more ? T(1) : T(0);
        moving += moves[t];
      }
    }
    for (int t = 0; t < kRows; ++t) {
      x_[t] = logistic::solution(logistic::Search<T>{x_[t], low[t], high[t], last[t]}, total[t]);
    }
  }

  alignas(64) Rows<T> root_, z_, e_, tail_;
  // Weights of the components in F, 1 - F and f, and their sums.
  alignas(64) Rows<T> below_, above_, density_;
  alignas(64) T below_max_[kRows], above_max_[kRows];
  alignas(64) T below_sum_[kRows], above_sum_[kRows], density_sum_[kRows];
  alignas(64) T log_below_[kRows], log_above_[kRows], log_slope_[kRows], y_[kRows];
};

template <typename T>
using Forward = LogisticTile<T, false>;
template <typename T>
using Inverse = LogisticTile<T, true>;

}  // namespace

namespace BSL_ISA {
extern const MixtureKernels mixture_logistic_kernels = mixture_kernels<Forward>();
extern const MixtureKernels mixture_logistic_inverse_kernels = mixture_kernels<Inverse>();
}  // namespace BSL_ISA
}  // namespace bsl
