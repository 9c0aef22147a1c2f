// The maps of cpu/mixture_logistic.cpp, step by step the same.
#include "core/bijectors/mixture_logistic.h"

#include "core/bijectors/deep_sigmoidal.h"
#include "cuda/mixture.h"
#include "cuda/root_search.h"

namespace bsl {
namespace {

namespace logistic = mixture_logistic;

// Parameters<T>, LocScale or SlopeShift, are made of loc and log_scale, whatever these are called.
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
      const auto gradients = [&](const auto& component) {
        return logistic::component_gradients<kInverse>(component, from_x, from_y, from_log,
                                                       slopes(k, mixture, own), m_.x, rest_,
                                                       own.below, own.above, own.density);
      };
      logistic::ComponentGradients<T> g = gradients(parameters(k));
      if constexpr (kInverse && Component::kKeepsRest) {
        if (narrow_.found) g = gradients(logistic::Placed<T>{parameters(k), z_[k]});
      }
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
