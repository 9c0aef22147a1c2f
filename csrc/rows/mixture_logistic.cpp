// y = logit F(x), F being the distribution function of a mixture of logistic distributions, and its
// inverse. F and 1 - F are two sums of their own, so that both tails keep their digits:
//
//   y = log F - log(1 - F),  dy/dx = f / (F (1 - F)).
//
// The deep sigmoidal transformation is this map with other parameters of the components.
#include "core/bijectors/mixture_logistic.h"

#include "core/bijectors/deep_sigmoidal.h"

#include "element_kernels.h"  // of cpu/ or of cuda/
#include "mixture.h"
#include "root_search.h"

namespace bsl {
namespace {

namespace logistic = mixture_logistic;

#ifdef __CUDACC__

// An element, step by step as a tile on the CPU. Parameters<T>, LocScale or SlopeShift, are made of
// loc and log_scale, whatever these are called.
template <typename T, template <typename> class Parameters, bool kInverse>
class LogisticMap : public ElementMap<3, 2, kMaxComponents> {
 public:
  __device__ LogisticMap(const ElementCall& a, const BlockRows<T>& rows)
      : m_(a, rows), z_(m_.scratch[0]), tail_(m_.scratch[1]) {
    if constexpr (kInverse) solve();
    if constexpr (kInverse && Component::kKeepsRest) {
      find_rest();
      place();
      if (find_narrow()) {
        find_units();
        place();
      }
    } else {
      place();
    }
    find_density();
  }

  __device__ Result<T> map() const {
    return {kInverse ? logistic::settled(m_.x) : y_, kInverse ? -log_slope_ : log_slope_};
  }

  __device__ T gradients(T by_y, T by_log) {
    const logistic::Sides<T> mixture = logistic::sides(y_, math::exp_minus_abs(y_));
    if constexpr (kInverse && Component::kKeepsRest) {
      if (narrow_.found) return narrow_gradients(mixture, by_y, by_log);
    }
    T from_x = 0, from_y = by_y, from_log = by_log;
    if (kInverse) {
      // The result solves y = g(x; parameters), so dx = (dy - dg) / g'(x); and the logarithm is
      // that of 1 / g' at this x.
      T log_by_x = 0;
      for (int k = 0; k < m_.n; ++k) {
        log_by_x += parameters(k).times_rate(slopes(k, mixture, shares(k)).log_by_z);
      }
      from_x = by_y - product(by_log, log_by_x);
      from_y = -logistic::over_slope(from_x, log_slope_);
      from_log = -by_log;
    }
    T by_x = kInverse ? -from_y : T(0);
    for (int k = 0; k < m_.n; ++k) {
      const Shares own = shares(k);
      const logistic::ComponentGradients<T> g = logistic::component_gradients<kInverse>(
          parameters(k), from_x, from_y, from_log, slopes(k, mixture, own), m_.x, rest_, own.below,
          own.above, own.density);
      if (!kInverse) by_x += g.position;
      m_.logit[k] = g.logit;
      m_.loc[k] = g.parameters.first;
      m_.log_scale[k] = g.parameters.second;
    }
    return by_x;
  }

 private:
  // A component's weights in F, 1 - F and f.
  struct Shares {
    T below, above, density;
  };

  using Component = Parameters<T>;

  __device__ Component parameters(int k) const {
    const T first = m_.loc[k], second = m_.log_scale[k];
    return {first, second, Component::factor_of(first, second)};
  }

  __device__ T distance(int k) const { return parameters(k).log_distance(m_.x); }

  __device__ T log_below(int k) const { return m_.logit[k] + logistic::log_cdf(z_[k], tail_[k]); }
  __device__ T log_above(int k) const {
    return m_.logit[k] + logistic::log_survival(z_[k], tail_[k]);
  }
  __device__ T log_density(int k) const {
    if (nothing_) return m_.log_weight(k, distance(k), least_);
    return logistic::log_density(m_.logit[k], z_[k], tail_[k], parameters(k).log_rate(), y_,
                                 logistic::LogSum<T>{below_.max, below_.log},
                                 logistic::LogSum<T>{above_.max, above_.log});
  }

  __device__ Shares shares(int k) const {
    return {below_.share(log_below(k)), above_.share(log_above(k)), density_.share(log_density(k))};
  }

  __device__ logistic::Slopes<T> slopes(int k, const logistic::Sides<T>& mixture,
                                        const Shares& own) const {
    return logistic::slopes(logistic::sides(z_[k], math::exp_minus_abs(z_[k])), mixture, own.below,
                            own.above, own.density);
  }

  // The same where x is given by units of a narrow component.
  __device__ T narrow_gradients(const logistic::Sides<T>& mixture, T by_x, T by_log) {
    T log_by_units = 0;
    for (int k = 0; k < m_.n; ++k) {
      log_by_units += slopes(k, mixture, shares(k)).log_by_z * narrow_.rate(m_.log_scale[k]);
    }
    const logistic::UnitGradients<T> from(narrow_, by_x, by_log, log_by_units, log_slope_);
    for (int k = 0; k < m_.n; ++k) {
      const Shares own = shares(k);
      const logistic::Placed<T> placed{parameters(k), narrow_, z_[k], by_x * own.density};
      const logistic::ComponentGradients<T> g = logistic::component_gradients<true>(
          placed, from.units, from.y, -by_log, slopes(k, mixture, own), m_.x, T(0), own.below,
          own.above, own.density);
      m_.logit[k] = g.logit;
      m_.loc[k] = g.parameters.first;
      m_.log_scale[k] = g.parameters.second;
    }
    return -from.y;
  }

  // What the components and their sums come to at x.
  __device__ void place() {
    const bool wide = logistic::is_wide(m_.x);
    place_by([&](int k) {
      const Component own = parameters(k);
      if constexpr (kInverse && Component::kKeepsRest) {
        if (narrow_.found) {
          return own.z(m_.x) + narrow_.units * narrow_.rate(m_.log_scale[k]);
        }
        if (rest_ != T(0)) return own.z(m_.x, rest_);
      }
      return wide ? own.wide_z(m_.x) : own.z(m_.x);
    });
    if (!logistic::is_far(y_, m_.x)) return;
    const T y = y_, least = m_.least_distance([&](int k) { return distance(k); });
    place_by([&](int k) { return logistic::far_z(y, distance(k) <= least); });
    y_ = y;
  }

  template <typename F>
  __device__ void place_by(const F& z) {
    below_ = above_ = Softmax<T>();
    for (int k = 0; k < m_.n; ++k) {
      const logistic::Component<T> c = logistic::component(z(k));
      z_[k] = c.z;
      tail_[k] = c.tail;
      below_.look_at(log_below(k));
      above_.look_at(log_above(k));
    }
    below_.seen_all();
    above_.seen_all();
    for (int k = 0; k < m_.n; ++k) {
      below_.add(log_below(k));
      above_.add(log_above(k));
    }
    below_.added_all();
    above_.added_all();
    y_ = (below_.max - above_.max) + (below_.log - above_.log);
  }

  __device__ void find_density() {
    const auto log = [&](int k) { return log_density(k); };
    density_ = softmax_of<T>(m_.n, log);
    log_slope_ = (density_.max + density_.log) + math::softplus(-math::abs(y_));
    if (density_.sum != T(0)) return;
    least_ = m_.least_distance([&](int k) { return distance(k); });
    nothing_ = true;
    density_ = softmax_of<T>(m_.n, log);
  }

  // Where every component takes y at or beyond a point, so does their mixture: the least and the
  // largest solution of the components hold x between them.
  __device__ void solve() {
    constexpr T share = logistic::kShare<T>;
    const T wanted = wanted_ = m_.x;
    T low = parameters(0).solution(wanted);
    T high = low, total = share * low;
    for (int k = 1; k < m_.n; ++k) {
      const T bound = parameters(k).solution(wanted);
      low = bound < low ? bound : low;
      high = bound > high ? bound : high;
      total += share * bound;
    }
    const Search<T> found = searched<true>(
        {guess(wanted, low, high), low, high, high - low}, wanted, T(1) + math::abs(wanted),
        [&](T x) {
          m_.x = x;
          return tangent();
        },
        Component::kApart);
    m_.x = logistic::solution(found.x, found.low, found.high, total);
  }

  // y and its slope.
  __device__ Tangent<T> tangent() {
    place();
    T slope = 0;
    for (int k = 0; k < m_.n; ++k) {
      const logistic::Sides<T> own = logistic::sides(z_[k], math::exp_minus_abs(z_[k]));
      const T by_z =
          below_.share(log_below(k)) * own.above + above_.share(log_above(k)) * own.below;
      slope +=
          narrow_.found ? by_z * narrow_.rate(m_.log_scale[k]) : parameters(k).times_rate(by_z);
    }
    return {y_, slope};
  }

  // Puts x into the jump where the search has ended, if y is missed there.
  __device__ bool find_narrow() {
    if (!logistic::is_missed(wanted_, y_) || m_.x - m_.x != T(0)) return false;
    logistic::Narrow<T> found = narrow_;
    for (int k = 0; k < m_.n; ++k) found.look_at(parameters(k), m_.x, wanted_);
    narrow_ = found;
    return found.found;
  }

  // Looks for the units at a narrow component.
  __device__ void find_units() {
    const T most = narrow_.most();
    m_.x = narrow_.loc;
    rest_ = T(0);
    narrow_.units =
        searched<true, true>(
            Search<T>{T(0), -most, most, most + most}, wanted_, logistic::rest_size(wanted_),
            [&](T units) {
              narrow_.units = units;
              return tangent();
            },
            T(1000))
            .x;
  }

  // Looks for what is lost beside x, if there is a component to which that matters.
  __device__ void find_rest() {
    T rate = 0;
    for (int k = 0; k < m_.n; ++k) {
      const T own = parameters(k).rate();
      rate = own > rate ? own : rate;
    }
    if (!logistic::rest_matters(rate, m_.x, wanted_)) return;
    const T most = logistic::most_rest(m_.x);
    rest_ = searched<false, true>(Search<T>{T(0), -most, most, most + most}, wanted_,
                                  logistic::rest_size(wanted_),
                                  [&](T rest) {
                                    rest_ = rest;
                                    return tangent();
                                  })
                .x;
  }

  // The middle of the bounds; or, where these may lie anywhere, the solution if all sigmoids were
  // straight lines, which is the mean of the components' solutions weighted by their slopes.
  __device__ T guess(T wanted, T low, T high) const {
    if constexpr (!Component::kBroad) return T(0.5) * low + T(0.5) * high;
    T sum = 0, rate = 0;
    for (int k = 0; k < m_.n; ++k) {
      const Component own = parameters(k);
      const T weight = math::exp(m_.logit[k]);
      sum += weight * (wanted - own.z(T(0)));
      rate += own.times_rate(weight);
    }
    const T x = sum / rate;
    return (x >= low) & (x <= high) ? x : T(0.5) * low + T(0.5) * high;
  }

  Mixture<T> m_;
  T *z_, *tail_;
  Softmax<T> below_, above_, density_;
  T wanted_ = 0, rest_ = 0;  // of the inverse: its argument, and what is lost beside x
  logistic::Narrow<T> narrow_ = {false, T(0), T(0), T(0)};
  T y_, log_slope_;
  T least_;  // distance of the nearest component, where no density is left
  bool nothing_ = false;
};

#else

// A tile of elements. Parameters<T>, LocScale or SlopeShift, are made of loc_ and log_scale_,
// whatever these are called.
template <typename T, template <typename> class Parameters, bool kInverse>
class LogisticMap : public MixtureTile<T> {
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
        if (narrow_[t].found) by_x[t] = narrow_gradients(t, mixture[t], grad_y[t], grad_log_det[t]);
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

  // Sets the gradients of a row whose x is given by units of a narrow component. Returns that of
  // the inverse's argument.
  T narrow_gradients(int t, const logistic::Sides<T>& mixture, T by_x, T by_log) {
    const logistic::Narrow<T>& at = narrow_[t];
    T log_by_units = 0;
    for (int i = t; i < n_ * kRows; i += kRows) {
      log_by_units += slopes(i, t, mixture).log_by_z * at.rate(log_scale_[i]);
    }
    const logistic::UnitGradients<T> from(at, by_x, by_log, log_by_units, log_slope_[t]);
    for (int i = t; i < n_ * kRows; i += kRows) {
      const T density = density_[i] / density_sum_[t];
      const logistic::Placed<T> own{parameters(i), at, z_[i], by_x * density};
      const logistic::ComponentGradients<T> g = logistic::component_gradients<true>(
          own, from.units, from.y, -by_log, slopes(i, t, mixture), x_[t], T(0),
          below_[i] / below_sum_[t], above_[i] / above_sum_[t], density);
      by_logit_[i] = g.logit;
      by_loc_[i] = g.parameters.first;
      by_scale_[i] = g.parameters.second;
    }
    return -from.y;
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

#endif

template <typename T>
using Forward = LogisticMap<T, logistic::LocScale, false>;
template <typename T>
using Inverse = LogisticMap<T, logistic::LocScale, true>;
template <typename T>
using DeepSigmoidal = LogisticMap<T, logistic::SlopeShift, false>;
template <typename T>
using DeepSigmoidalInverse = LogisticMap<T, logistic::SlopeShift, true>;

}  // namespace

namespace BSL_ISA {
extern const RowKernels mixture_logistic_transform_kernels = element_kernels<Forward, Inverse>();
extern const RowKernels deep_sigmoidal_transform_kernels =
    element_kernels<DeepSigmoidal, DeepSigmoidalInverse>();
}  // namespace BSL_ISA
}  // namespace bsl
