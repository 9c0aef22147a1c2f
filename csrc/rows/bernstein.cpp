// y = P(x), P being a Bernstein polynomial of rising coefficients on [-bound, bound] and its
// tangents outside, and its inverse.
//
// With t and u the distances from both ends, in units of the interval, B_k = C(m, k) t^k u^(m - k),
// m = degree - 1, and c_k the sum of the first k steps between coefficients:
//
//   P = first + sum_k c_k B_k + t D,  D = sum_k step_(k+1) B_k,  dP/dx = degree / (2 bound) D.
//
// All terms are positive; nothing cancels but the first coefficient. All but functions of the raw
// parameters is computed in double.
#include "core/bijectors/bernstein.h"

#include "element_kernels.h"  // of cpu/ or of cuda/
#include "root_search.h"

namespace bsl {
namespace {

#ifdef __CUDACC__

// C(degree, k) for all k and degrees up to that of the longest D, row after row.
class Binomials {
 public:
  constexpr Binomials() : numbers_() {
    for (int degree = 0; degree < kRows; ++degree) {
      bernstein::binomials(degree, numbers_ + start(degree));
    }
  }

  // Nothing is read of degree -1: that of the differences of a single step.
  __device__ const double* row(int degree) const { return numbers_ + start(degree); }

 private:
  static constexpr int kRows = kMaxComponents - 1;

  BSL_HD static constexpr int start(int degree) { return degree * (degree + 1) / 2; }

  double numbers_[kRows * (kRows + 1) / 2];
};

// All threads of a warp read the same number of it at a time.
__constant__ constexpr Binomials kBinomials;

// Sums begin with this factor, a power of 2: C(m, k) t^k alone may be 4e17 times what it is with
// its power of u, and steps may be 1e290.
constexpr double kGuard = 0x1p-50;

// An element. Sums over the basis are taken by Horner's rule, which keeps no basis. Gradients, each
// of its own B_k, take it in two walks as the CPU does: up for powers of t, down for those of u.
template <typename T, bool kInverse>
class BernsteinMap : public ElementMap<1, sizeof(double) / sizeof(T), kMaxComponents> {
 public:
  __device__ BernsteinMap(const ElementCall& a, const BlockRows<T>& rows)
      : n_(static_cast<int>(a.widths[1]) - 1),
        bound_(a.numbers[0]),
        factor_(n_ / (2 * bound_)),
        raw_(rows.own(0)),
        step_(rows.own_doubles(1)) {
    rows.load({&a.inputs[1]}, {n_ + 1}, a.shape);
    x_ = static_cast<double>(element<T>(a.inputs[0], a.shape, rows.index()));
    for (int k = 0; k < n_; ++k) step_[k] = bernstein::step(raw_[k + 1]);
    if constexpr (kInverse) solve();
    place();
  }

  __device__ Result<T> map() const {
    const double log_slope = math::log(slope_);
    return {static_cast<T>(kInverse ? x_ : static_cast<double>(raw_[0]) + value_),
            static_cast<T>(kInverse ? -log_slope : log_slope)};
  }

  __device__ T gradients(T by_y, T by_log) {
    const double curve = find_curve();
    double from_y = static_cast<double>(by_y), from_log = static_cast<double>(by_log);
    double by_x = from_y * slope_ + from_log * curve;
    if constexpr (kInverse) {
      // See LogisticMap: dx = (dy - dP) / P'.
      from_y = (from_log * curve - from_y) / slope_;
      from_log = -from_log;
      by_x = -from_y;
    }
    raw_[0] = static_cast<T>(from_y);
    // Steps make room for the basis.
    double* const basis = step_;
    const double* const binomial = kBinomials.row(n_ - 1);
    double power = 1, after = 0;
    for (int k = 0; k < n_; ++k) {
      basis[k] = binomial[k] * power;
      power *= at_.t;
    }
    power = unit(n_ - 1);
    for (int k = n_ - 1; k >= 0; --k) {
      const double b = basis[k] * power;
      power *= at_.u;
      const double by_step =
          bernstein::by_step(at_.t, at_.beyond, b, after, derivative_, from_y, from_log);
      raw_[k + 1] = static_cast<T>(by_step * bernstein::step_gradient(raw_[k + 1]));
      after += b;
    }
    return static_cast<T>(by_x);
  }

 private:
  // What makes the sum of a basis 1, which (t + u)^degree is not quite.
  __device__ double unit(int degree) const { return 1 + degree * at_.missing; }

  // At x, the value less the first coefficient and the slope.
  __device__ void place() {
    at_ = bernstein::place(x_, bound_, factor_);
    const double* const binomial = kBinomials.row(n_ - 1);
    double power = kGuard, risen = 0, sum = 0, steps = 0;
    for (int k = 0; k < n_; ++k) {
      const double b = binomial[k] * power;
      sum = sum * at_.u + risen * b;
      steps = steps * at_.u + step_[k] * b;
      risen += step_[k];
      power *= at_.t;
    }
    const double whole = unit(n_ - 1) / kGuard;
    derivative_ = steps * whole;
    value_ = sum * whole + (at_.t * derivative_ + at_.beyond * derivative_);
    slope_ = factor_ * derivative_;
  }

  // d log(slope) / dx.
  __device__ double find_curve() const {
    const double* const binomial = kBinomials.row(n_ - 2);
    double power = kGuard, sum = 0;
    for (int k = 0; k < n_ - 1; ++k) {
      sum = sum * at_.u + (step_[k + 1] - step_[k]) * (binomial[k] * power);
      power *= at_.t;
    }
    const double inside = sum * (unit(n_ - 2) / kGuard) * (n_ - 1) / (2 * bound_ * derivative_);
    return math::abs(x_) > bound_ ? 0.0 : inside;
  }

  // On a tangent at once; inside from where the coefficients, joined by lines, are met.
  __device__ void solve() {
    const double wanted = x_ - static_cast<double>(raw_[0]);
    double top = 0, from = 0, over = step_[0];
    int at = 0;
    for (int k = 0; k < n_; ++k) {
      if (wanted >= top) {
        at = k;
        from = top;
        over = step_[k];
      }
      top += step_[k];
    }
    if (wanted <= 0.0) {
      x_ = wanted / (factor_ * step_[0]) - bound_;
    } else if (wanted >= top) {
      x_ = (wanted - top) / (factor_ * step_[n_ - 1]) + bound_;
    } else {
      const double guess = (at + (wanted - from) / over) / factor_ - bound_;
      // What the powers are rounded by.
      const double size = (1 + 0.125 * n_) * wanted;
      const Search<double> start = {guess, -bound_, bound_, 2 * bound_};
      x_ = searched<false>(start, wanted, size, [&](double x) {
             x_ = x;
             place();
             return Tangent<double>{value_, slope_};
           }).x;
    }
  }

  const int n_;  // the degree
  const double bound_, factor_;
  T* const raw_;
  double* const step_;  // from coefficient k to the next
  double x_, value_, derivative_, slope_;
  bernstein::Place at_;
};

template <typename T>
using Forward = BernsteinMap<T, false>;
template <typename T>
using Inverse = BernsteinMap<T, true>;

#else

// A tile of elements.
template <typename T, bool kInverse>
class BernsteinTile : public TileOfElements<1, kMaxComponents> {
 public:
  explicit BernsteinTile(const ElementCall& call)
      : n_(static_cast<int>(call.widths[1]) - 1),
        bound_(call.numbers[0]),
        factor_(n_ / (2 * bound_)) {
    bernstein::binomials(n_ - 1, binomial_);
    bernstein::binomials(n_ - 2, lower_binomial_);
  }

  static bool fits(const ElementCall& call) { return call.widths[1] > 1; }

  void load(const T* x, const T* const* lanes) {
    for (int t = 0; t < kRows; ++t) x_[t] = static_cast<double>(x[t]);
    raw_ = lanes[0];
  }

  void map(T* y, T* log_det) {
    find_point();
    for (int t = 0; t < kRows; ++t) {
      const double log_slope = math::log(slope_[t]);
      y[t] = static_cast<T>(kInverse ? x_[t] : static_cast<double>(raw_[t]) + value_[t]);
      log_det[t] = static_cast<T>(kInverse ? -log_slope : log_slope);
    }
  }

  void gradients(const T* grad_y, const T* grad_log_det, T* by_x) {
    find_point();
    alignas(64) double curve[kRows], from_y[kRows], from_log[kRows], tail[kRows];
    find_curve(curve);
    for (int t = 0; t < kRows; ++t) {
      from_y[t] = static_cast<double>(grad_y[t]);
      from_log[t] = static_cast<double>(grad_log_det[t]);
      tail[t] = 0;
      if (kInverse) {
        // See LogisticTile in mixture_logistic.cpp: dx = (dy - dP) / P'.
        from_y[t] = (from_log[t] * curve[t] - from_y[t]) / slope_[t];
        from_log[t] = -from_log[t];
        by_x[t] = static_cast<T>(-from_y[t]);
      } else {
        by_x[t] = static_cast<T>(from_y[t] * slope_[t] + from_log[t] * curve[t]);
      }
      by_raw_[t] = static_cast<T>(from_y[t]);
    }
    for (int k = n_ - 1; k >= 0; --k) {
      for (int t = 0; t < kRows; ++t) {
        const double b = basis_[k * kRows + t];
        const double by_step = bernstein::by_step(t_[t], beyond_[t], b, tail[t], derivative_[t],
                                                  from_y[t], from_log[t]);
        const int i = (k + 1) * kRows + t;
        by_raw_[i] = static_cast<T>(by_step * bernstein::step_gradient(raw_[i]));
        tail[t] += b;
      }
    }
  }

  const T* gradient(int) const { return by_raw_; }

 private:
  // x, and there the value less the first coefficient and the slope.
  void find_point() {
    for (int t = 0; t < kRows; ++t) sum_[t] = 0;
    for (int k = 1; k <= n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        step_[row + t] = bernstein::step(raw_[row + t]);
        sum_[row + t] = sum_[row - kRows + t] + step_[row + t];
      }
    }
    if (kInverse) solve();
    place();
  }

  void place() {
    for (int t = 0; t < kRows; ++t) {
      const bernstein::Place at = bernstein::place(x_[t], bound_, factor_);
      t_[t] = at.t;
      u_[t] = at.u;
      missing_[t] = at.missing;
      beyond_[t] = at.beyond;
    }
    find_basis(n_ - 1, binomial_);
    for (int t = 0; t < kRows; ++t) value_[t] = derivative_[t] = 0;
    for (int k = 0; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        value_[t] += sum_[row + t] * basis_[row + t];
        derivative_[t] += step_[row + kRows + t] * basis_[row + t];
      }
    }
    for (int t = 0; t < kRows; ++t) {
      value_[t] += t_[t] * derivative_[t] + beyond_[t] * derivative_[t];
      slope_[t] = factor_ * derivative_[t];
    }
  }

  // The basis of this degree. Its sum is made 1: (t + u)^degree is so only nearly.
  void find_basis(int degree, const double* binomial) {
    alignas(64) double power[kRows];
    for (int t = 0; t < kRows; ++t) power[t] = 1;
    for (int k = 0; k <= degree; ++k) {
      for (int t = 0; t < kRows; ++t) {
        basis_[k * kRows + t] = binomial[k] * power[t];
        power[t] *= t_[t];
      }
    }
    for (int t = 0; t < kRows; ++t) power[t] = 1 + degree * missing_[t];
    for (int k = degree; k >= 0; --k) {
      for (int t = 0; t < kRows; ++t) {
        basis_[k * kRows + t] *= power[t];
        power[t] *= u_[t];
      }
    }
  }

  // d log(slope) / dx; leaves the basis as it was.
  void find_curve(double* curve) {
    find_basis(n_ - 2, lower_binomial_);
    for (int t = 0; t < kRows; ++t) curve[t] = 0;
    for (int k = 0; k < n_ - 1; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        curve[t] += (step_[row + 2 * kRows + t] - step_[row + kRows + t]) * basis_[row + t];
      }
    }
    for (int t = 0; t < kRows; ++t) {
      const double inside = curve[t] * (n_ - 1) / (2 * bound_ * derivative_[t]);
      curve[t] = math::abs(x_[t]) > bound_ ? 0.0 : inside;
    }
    find_basis(n_ - 1, binomial_);
  }

  // On a tangent at once; inside from where the coefficients, joined by lines, are met.
  void solve() {
    alignas(64) double at[kRows], from[kRows], over[kRows];
    for (int t = 0; t < kRows; ++t) {
      search_.wanted[t] = x_[t] - static_cast<double>(raw_[t]);
      // What the powers are rounded by.
      search_.size[t] = (1 + 0.125 * n_) * math::abs(search_.wanted[t]);
      at[t] = 0;
    }
    for (int k = 1; k < n_; ++k) {
      const int row = k * kRows;
      for (int t = 0; t < kRows; ++t) {
        at[t] += search_.wanted[t] >= sum_[row + t] ? 1.0 : 0.0;
      }
    }
    for (int t = 0; t < kRows; ++t) {
      const int row = static_cast<int>(at[t]) * kRows;
      from[t] = sum_[row + t];
      over[t] = step_[row + kRows + t];
    }
    alignas(64) double outside[kRows];
    for (int t = 0; t < kRows; ++t) {
      const double wanted = search_.wanted[t], top = sum_[n_ * kRows + t];
      const double nodes = at[t] + (wanted - from[t]) / over[t];
      const double below = wanted / (factor_ * step_[kRows + t]) - bound_;
      const double above = (wanted - top) / (factor_ * step_[n_ * kRows + t]) + bound_;
      const bool is_below = wanted <= 0.0, is_above = wanted >= top;
      search_.moves[t] = is_below | is_above ? 0.0 : 1.0;
      outside[t] = is_below ? below : above;
      search_.x[t] = nodes / factor_ - bound_;
      search_.low[t] = -bound_;
      search_.high[t] = bound_;
    }
    alignas(64) double searched[kRows];
    for (int t = 0; t < kRows; ++t) searched[t] = search_.moves[t];
    search_.template run<false>([&] {
      for (int t = 0; t < kRows; ++t) x_[t] = search_.x[t];
      place();
      for (int t = 0; t < kRows; ++t) {
        search_.value[t] = value_[t];
        search_.slope[t] = slope_[t];
      }
    });
    for (int t = 0; t < kRows; ++t) x_[t] = searched[t] > 0.0 ? search_.x[t] : outside[t];
  }

  const int n_;  // the degree
  const double bound_, factor_;
  double binomial_[kMaxComponents] = {}, lower_binomial_[kMaxComponents] = {};
  alignas(64) double x_[kRows], t_[kRows], u_[kRows], missing_[kRows], beyond_[kRows];
  alignas(64) double value_[kRows], derivative_[kRows], slope_[kRows];
  RootSearch<double> search_;
  const T* raw_ = nullptr;
  alignas(64) Rows<T> by_raw_;
  alignas(64) Rows<double> step_, sum_, basis_;
};

template <typename T>
using Forward = BernsteinTile<T, false>;
template <typename T>
using Inverse = BernsteinTile<T, true>;

#endif

}  // namespace

namespace BSL_ISA {
extern const RowKernels bernstein_transform_kernels = element_kernels<Forward, Inverse>();
}  // namespace BSL_ISA
}  // namespace bsl
