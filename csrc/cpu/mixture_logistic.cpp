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
        const T density = density_[i] / density_sum_[t];
        const T both = below_[i] / below_sum_[t] - above_[i] / above_sum_[t];
        const T by_z = from_y[t] * s.y_by_z + from_log[t] * s.log_by_z;
        const T by_position = by_z * root_[i] * root_[i];
        if (!kInverse) by_x[t] += by_position;
        by_logit_[i] = from_y[t] * both + from_log[t] * s.log_by_logit;
        by_loc_[i] = -by_position;
        // 0 times infinity: far from this component.
        const T by_rate = by_z == T(0) ? T(0) : by_z * z_[i];
        by_scale_[i] = -(by_rate + from_log[t] * density);
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

  // No solution takes half as many; where the last one is a jump, a bisection does.
  static constexpr int kMaxSteps = 200;
  static constexpr T kEps = sizeof(T) == 4 ? T(1.1920929e-7) : T(2.220446049250313e-16);

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

  // log dy/dx = log sum f_k / F - log(1 - F). F is the smaller side: then the large numbers of a
  // tail are those of a component and of the largest one, which are taken off each other first.
  void find_density() {
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const T below = logistic::log_cdf(z_[i], tail_[i]);
        const T above = logistic::log_survival(z_[i], tail_[i]);
        const bool lower = y_[t] < T(0);
        const T share = lower ? ((logit_[i] + below) - below_max_[t]) - log_below_[t]
                              : ((logit_[i] + above) - above_max_[t]) - log_above_[t];
        density_[i] = (share + (lower ? above : below)) - log_scale_[i];
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

  // Newton's method between bounds, which halves them where it does not halve its own step. Where
  // every component takes y at or beyond a point, so does their mixture: the least and the largest
  // loc + scale y hold x between them.
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
    for (int step = 0; step < kMaxSteps && moving > T(0); ++step) {
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
        const T x = x_[t], rest = wanted[t] - y_[t];
        const bool active = moves[t] > T(0);
        low[t] = active & (rest > T(0)) ? x : low[t];
        high[t] = active & (rest < T(0)) ? x : high[t];
        const T newton = rest / slope[t];
        const T there = x + newton;
        const T middle = low[t] + T(0.5) * (high[t] - low[t]);
        const bool good = (there >= low[t]) & (there <= high[t]) &
                          (slope[t] < math::Real<T>::infinity) &
                          (math::abs(newton) < T(0.5) * last[t]);
        // What is left is what rounding leaves.
        const bool near = (math::abs(rest) <= T(2) * kEps * (T(1) + math::abs(wanted[t]))) |
                          (math::abs(newton) <= kEps * math::abs(x));
        const T found = good ? there : near ? x : middle;
        const T next = rest == rest ? found : rest;
        last[t] = math::abs(next - x);
        x_[t] = active ? next : x;
        const bool more = active & !near & (next != x) & (next == next);
        moves[t] = more ? T(1) : T(0);
        moving += moves[t];
      }
    }
    for (int t = 0; t < kRows; ++t) {
      const bool finite = math::abs(total[t]) < math::Real<T>::infinity;
      const T other = low[t] == high[t] ? total[t] : math::Real<T>::nan;
      x_[t] = finite ? x_[t] : other;
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
