// The map of cpu/bernstein.cpp, a thread for each element, in double as there. Sums over the basis
// are taken by Horner's rule, which keeps no basis. Gradients, each of its own B_k, take it in two
// walks as the CPU does: up for powers of t, down for those of u.
#include "core/bijectors/bernstein.h"

#include "cuda/element_kernels.h"
#include "cuda/root_search.h"

namespace bsl {
namespace {

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

}  // namespace

namespace BSL_ISA {
extern const RowKernels bernstein_transform_kernels = element_kernels<Forward, Inverse>();
}  // namespace BSL_ISA
}  // namespace bsl
