// A tile of y = logit F(x), F being the distribution function of a mixture of logistic
// distributions, and its inverse. F and 1 - F are two sums of their own, so that both tails keep
// their digits:
//
//   y = log F - log(1 - F),  dy/dx = f / (F (1 - F)).
//
// The deep sigmoidal transformation is this map with other parameters of the components.
#pragma once

#include "core/bijectors/deep_sigmoidal.h"
#include "core/bijectors/mixture_logistic.h"
#include "cpu/mixture.h"
#include "cpu/root_search.h"

namespace bsl {
namespace {

namespace logistic = mixture_logistic;

// Parameters<T>, LocScale or SlopeShift, are made of loc_ and log_scale_, whatever these are
// called.
template <typename T, template <typename> class Parameters, bool kInverse>
class LogisticTile : public MixtureTile<T> {
 public:
  using MixtureTile<T>::MixtureTile;

  void map(T* y, T* log_det) {
    find_point();
    find_density();
    for (int t = 0; t < kRows; ++t) {
      y[t] = kInverse ? logistic::settled(x_[t]) : y_[t];
      log_det[t] = kInverse ? -log_slope_[t] : log_slope_[t];
    }
  }

  void gradients(const T* grad_y, const T* grad_log_det, T* by_x) {
    find_point();
    find_density();
    alignas(64) T from_x[kRows] = {}, from_y[kRows], from_log[kRows];
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
          const int i = row + t;
          log_by_x[t] += parameters(i).times_rate(slopes(i, t, mixture[t]).log_by_z);
        }
      }
      for (int t = 0; t < kRows; ++t) {
        from_x[t] = grad_y[t] - product(grad_log_det[t], log_by_x[t]);
        from_y[t] = -logistic::over_slope(from_x[t], log_slope_[t]);
        from_log[t] = -grad_log_det[t];
      }
    }
    for (int t = 0; t < kRows; ++t) by_x[t] = kInverse ? -from_y[t] : T(0);
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const logistic::Slopes<T> s = slopes(i, t, mixture[t]);
        const logistic::ComponentGradients<T> g = logistic::component_gradients<kInverse>(
            parameters(i), from_x[t], from_y[t], from_log[t], s, x_[t], rest_[t],
            below_[i] / below_sum_[t], above_[i] / above_sum_[t], density_[i] / density_sum_[t]);
        if (!kInverse) by_x[t] += g.position;
        by_logit_[i] = g.logit;
        by_loc_[i] = g.parameters.first;
        by_scale_[i] = g.parameters.second;
      }
    }
    if constexpr (kInverse && Component::kKeepsRest) {
      for (int t = 0; t < kRows; ++t) {
        for (int i = t; narrow_[t].found && i < n_ * kRows; i += kRows) {
          const logistic::Placed<T> own{parameters(i), z_[i]};
          const logistic::ComponentGradients<T> g = logistic::component_gradients<true>(
              own, from_x[t], from_y[t], from_log[t], slopes(i, t, mixture[t]), x_[t], T(0),
              below_[i] / below_sum_[t], above_[i] / above_sum_[t], density_[i] / density_sum_[t]);
          by_loc_[i] = g.parameters.first;
          by_scale_[i] = g.parameters.second;
        }
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

  using Component = Parameters<T>;

  Component parameters(int i) const { return {loc_[i], log_scale_[i], factor_[i]}; }

  void find_point() {
    for (int i = 0; i < n_ * kRows; ++i) {
      factor_[i] = Component::factor_of(loc_[i], log_scale_[i]);
    }
    for (int t = 0; t < kRows; ++t) {
      rest_[t] = T(0);
      narrow_[t] = {false, T(0), T(0), T(0)};
    }
    if (kInverse) solve();
    if constexpr (kInverse && Component::kKeepsRest) {
      if (!find_rest()) place();
      if (find_narrow()) find_units();
    } else {
      place();
    }
  }

  // What a search moves: x, what is lost beside it, or that in units of a narrow component.
  enum class Moving { x, rest, units };

  // What the components and their sums come to at x.
  template <Moving kMoving = Moving::x>
  void place() {
    T wide = 0;
    for (int t = 0; t < kRows; ++t) wide += logistic::is_wide(x_[t]) ? T(1) : T(0);
    if constexpr (kMoving == Moving::units) {
      place_by([&](int i, int t) {
        const Component own = parameters(i);
        const logistic::Narrow<T>& at = narrow_[t];
        if (at.found) return own.z(x_[t]) + at.units * at.rate(own.log_scale);
        return rest_[t] == T(0) && wide > T(0) ? own.wide_z(x_[t]) : own.z(x_[t], rest_[t]);
      });
    } else if constexpr (kMoving == Moving::rest) {
      place_by([&](int i, int t) { return parameters(i).z(x_[t], rest_[t]); });
    } else if (wide > T(0)) {
      place_by([&](int i, int t) { return parameters(i).wide_z(x_[t]); });
    } else {
      place_by([&](int i, int t) { return parameters(i).z(x_[t]); });
    }
    T far = 0;
    for (int t = 0; t < kRows; ++t) far += logistic::is_far(y_[t], x_[t]) ? T(1) : T(0);
    if (far > T(0)) find_nearest();
  }

  // z(i, t) is that of number i, in row t.
  template <typename F>
  void place_by(const F& z) {
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const logistic::Component<T> c = logistic::component(z(i, t));
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

  // Where y is infinite, weights become those of the nearest components.
  void find_nearest() {
    alignas(64) T y[kRows], least[kRows];
    for (int t = 0; t < kRows; ++t) {
      y[t] = y_[t];
      least[t] = this->least_distance(t, [&](int i) { return distance(i); });
    }
    place_by([&](int i, int t) {
      return logistic::is_far(y[t], x_[t]) ? logistic::far_z(y[t], distance(i) <= least[t]) : z_[i];
    });
    for (int t = 0; t < kRows; ++t) y_[t] = logistic::is_far(y[t], x_[t]) ? y[t] : y_[t];
  }

  T distance(int i) const { return parameters(i).log_distance(x_[i % kRows]); }

  // log dy/dx = log sum f_k / F - log(1 - F).
  void find_density() {
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        density_[i] =
            logistic::log_density(logit_[i], z_[i], tail_[i], parameters(i).log_rate(), y_[t],
                                  logistic::LogSum<T>{below_max_[t], log_below_[t]},
                                  logistic::LogSum<T>{above_max_[t], log_above_[t]});
      }
    }
    alignas(64) T max[kRows];
    this->weigh(density_, max, density_sum_, log_slope_);
    this->weigh_nearest(density_, density_sum_, [&](int i) { return distance(i); });
    for (int t = 0; t < kRows; ++t) {
      log_slope_[t] = (max[t] + log_slope_[t]) + math::softplus(-math::abs(y_[t]));
    }
  }

  logistic::Slopes<T> slopes(int i, int t, const logistic::Sides<T>& mixture) const {
    return logistic::slopes(logistic::sides(z_[i], e_[i]), mixture, below_[i] / below_sum_[t],
                            above_[i] / above_sum_[t], density_[i] / density_sum_[t]);
  }

  // Where every component takes y at or beyond a point, so does their mixture: the least and the
  // largest solution of the components hold x between them.
  void solve() {
    alignas(64) T total[kRows];
    for (int t = 0; t < kRows; ++t) {
      search_.wanted[t] = x_[t];
      search_.size[t] = T(1) + math::abs(x_[t]);
      search_.low[t] = search_.high[t] = parameters(t).solution(x_[t]);
      // Less than infinity if all are.
      total[t] = logistic::kShare<T> * search_.low[t];
      search_.moves[t] = T(1);
    }
    for (int k = 1; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const T bound = parameters(row + t).solution(x_[t]);
        search_.low[t] = bound < search_.low[t] ? bound : search_.low[t];
        search_.high[t] = bound > search_.high[t] ? bound : search_.high[t];
        total[t] += logistic::kShare<T> * bound;
      }
    }
    guess();
    T broad = Component::kBroad ? T(1) : T(0);
    for (int t = 0; t < kRows; ++t) {
      broad += search_.high[t] - search_.low[t] > Component::kApart ? T(1) : T(0);
    }
    if (broad > T(0)) {
      search_.template run<true>([&] { evaluate<Moving::x>(); }, Component::kApart);
    } else {
      search_.template run<false>([&] { evaluate<Moving::x>(); });
    }
    for (int t = 0; t < kRows; ++t) {
      x_[t] = logistic::solution(search_.x[t], search_.low[t], search_.high[t], total[t]);
    }
  }

  // y and its slope where the search is.
  template <Moving kMoving>
  void evaluate() {
    for (int t = 0; t < kRows; ++t) {
      if constexpr (kMoving == Moving::units) {
        narrow_[t].units = search_.x[t];
      } else {
        (kMoving == Moving::rest ? rest_ : x_)[t] = search_.x[t];
      }
    }
    place<kMoving>();
    for (int t = 0; t < kRows; ++t) search_.slope[t] = T(0);
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const int i = row + t;
        const logistic::Sides<T> own = logistic::sides(z_[i], e_[i]);
        const T by_z =
            below_[i] / below_sum_[t] * own.above + above_[i] / above_sum_[t] * own.below;
        if constexpr (kMoving == Moving::units) {
          search_.slope[t] += by_z * narrow_[t].rate(log_scale_[i]);
        } else {
          search_.slope[t] += parameters(i).times_rate(by_z);
        }
      }
    }
    for (int t = 0; t < kRows; ++t) search_.value[t] = y_[t];
  }

  // Looks for what is lost beside x, if there is a component to which that matters. Then place()
  // has been called where it ends.
  bool find_rest() {
    alignas(64) T rate[kRows];
    for (int t = 0; t < kRows; ++t) rate[t] = parameters(t).rate();
    for (int i = kRows; i < n_ * kRows; i += kRows) {
      for (int t = 0; t < kRows; ++t) rate[t] = larger(parameters(i + t).rate(), rate[t]);
    }
    T moving = 0;
    for (int t = 0; t < kRows; ++t) {
      search_.moves[t] = logistic::rest_matters(rate[t], x_[t], search_.wanted[t]) ? T(1) : T(0);
      moving += search_.moves[t];
    }
    if (!(moving > T(0))) return false;
    for (int t = 0; t < kRows; ++t) {
      const T most = logistic::most_rest(x_[t]);
      search_.low[t] = -most;
      search_.high[t] = most;
      search_.x[t] = T(0);
      search_.size[t] = logistic::rest_size(search_.wanted[t]);
    }
    search_.template run<false, true>([&] { evaluate<Moving::rest>(); });
    return true;
  }

  // Puts x into the jump where the search has ended, if y is missed there.
  bool find_narrow() {
    T missed = 0;
    for (int t = 0; t < kRows; ++t) {
      missed += logistic::is_missed(search_.wanted[t], y_[t]) ? T(1) : T(0);
    }
    if (!(missed > T(0))) return false;
    bool found = false;
    for (int t = 0; t < kRows; ++t) {
      const T wanted = search_.wanted[t];
      if (!logistic::is_missed(wanted, y_[t]) || x_[t] - x_[t] != T(0)) continue;
      logistic::Narrow<T>& at = narrow_[t];
      for (int i = t; i < n_ * kRows; i += kRows) at.look_at(parameters(i), x_[t], wanted);
      found = found || at.found;
    }
    return found;
  }

  // Looks for the units at narrow components, in their rows.
  void find_units() {
    for (int t = 0; t < kRows; ++t) {
      const bool moves = narrow_[t].found;
      search_.moves[t] = moves ? T(1) : T(0);
      if (!moves) continue;
      x_[t] = narrow_[t].loc;
      rest_[t] = T(0);
      search_.high[t] = narrow_[t].most();
      search_.low[t] = -search_.high[t];
      search_.x[t] = T(0);
      search_.size[t] = logistic::rest_size(search_.wanted[t]);
    }
    search_.template run<true, true>([&] { evaluate<Moving::units>(); }, T(1000));
  }

  // The middle of the bounds; or, where these may lie anywhere, the solution if all sigmoids were
  // straight lines, which is the mean of the components' solutions weighted by their slopes.
  void guess() {
    for (int t = 0; t < kRows; ++t) {
      const T low = search_.low[t], high = search_.high[t];
      search_.x[t] = T(0.5) * low + T(0.5) * high;
    }
    if constexpr (Component::kBroad) {
      alignas(64) T sums[kRows] = {}, rates[kRows] = {};
      for (int k = 0; k < n_; ++k) {
        const int row = k * kRows;
        for (int t = 0; t < kRows; ++t) {
          const int i = row + t;
          const T weight = math::exp(logit_[i]);
          sums[t] += weight * (x_[t] - parameters(i).z(T(0)));
          rates[t] += parameters(i).times_rate(weight);
        }
      }
      for (int t = 0; t < kRows; ++t) {
        const T x = sums[t] / rates[t];
        search_.x[t] = (x >= search_.low[t]) & (x <= search_.high[t]) ? x : search_.x[t];
      }
    }
  }

  RootSearch<T> search_;
  alignas(64) T rest_[kRows];  // what is lost beside x_
  logistic::Narrow<T> narrow_[kRows];
  alignas(64) Rows<T> factor_, z_, e_, tail_;
  // Weights of the components in F, 1 - F and f, and their sums.
  alignas(64) Rows<T> below_, above_, density_;
  alignas(64) T below_max_[kRows], above_max_[kRows];
  alignas(64) T below_sum_[kRows], above_sum_[kRows], density_sum_[kRows];
  alignas(64) T log_below_[kRows], log_above_[kRows], log_slope_[kRows], y_[kRows];
};

template <typename T>
using MixtureLogistic = LogisticTile<T, logistic::LocScale, false>;
template <typename T>
using MixtureLogisticInverse = LogisticTile<T, logistic::LocScale, true>;
template <typename T>
using DeepSigmoidal = LogisticTile<T, logistic::SlopeShift, false>;
template <typename T>
using DeepSigmoidalInverse = LogisticTile<T, logistic::SlopeShift, true>;

}  // namespace
}  // namespace bsl
