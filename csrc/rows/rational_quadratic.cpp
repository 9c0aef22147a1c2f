// Rational-quadratic splines of rows of bins.
//
// Knots are float64 whatever T is: a slope may change by orders of magnitude within 1e-7 of a knot,
// and the log-determinant there is worth as much as the knot is (docs/numerics.md).
#include "core/bijectors/rational_quadratic.h"

#include "element_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

#ifdef __CUDACC__

// The widths or the heights of an element, whose logits are a row of its own.
template <typename T>
struct Axis {
  T* logits;
  int bins;
  double bound, least, free;  // a bin's size is least + free * probability
  double largest, inv_total;
  double start, size;  // of the element's bin

  __device__ Axis(T* row, int n, double half_length, double min_size)
      : logits(row),
        bins(n),
        bound(half_length),
        least(2 * half_length * min_size),
        free(2 * half_length * (1 - min_size * n)) {
    T most = logits[0];
    for (int k = 1; k < bins; ++k) most = logits[k] > most ? logits[k] : most;
    largest = static_cast<double>(most);
    double total = 0;
    for (int k = 0; k < bins; ++k) total += numerator(k);
    inv_total = 1.0 / total;
  }

  __device__ double numerator(int k) const {
    return spline::softmax_numerator<T>(static_cast<double>(logits[k]) - largest);
  }
  __device__ double probability(int k) const { return numerator(k) * inv_total; }

  // Walks to bin `index`, of which it notes where it is; f(k, its left knot) decides at each bin
  // whether to go on. Returns where the bin ends.
  template <typename F>
  __device__ double walk(const F& goes_on) {
    double knot = -bound, end = bound;
    const double factor = free * inv_total;
    for (int k = 0; k < bins && goes_on(k, knot); ++k) {
      start = knot;
      size = least + factor * numerator(k);
      knot += size;
      end = k == bins - 1 ? bound : knot;
    }
    return end;
  }
};

// An element. What a tile on the CPU keeps for every bin is computed again in every walk over them:
// numerators of softmaxes, knots.
template <typename T, bool kInverse>
class Spline : public ElementMap<3, 0, kMaxBins> {
 public:
  __device__ Spline(const ElementCall& call, const BlockRows<T>& rows)
      : Spline(loaded(call, rows), element<T>(call.inputs[0], call.shape, rows.index()), rows) {}

  __device__ Spline(const SplineSettings& a, T x, const BlockRows<T>& rows)
      : tails_(a.tails),
        bound_(a.bound),
        x_axis_(rows.own(0), a.bins, a.bound, a.min_width),
        y_axis_(rows.own(1), a.bins, a.bound, a.min_height),
        slopes_(rows.own(2)) {
    place(x);
    const bool is_affine = tails_ == Tails::affine;
    index_ = 0;
    // The last bin whose left knot is not beyond the position; in a tail it is known whatever the
    // knots are, which may be NaN.
    Axis<T>& searched = kInverse ? y_axis_ : x_axis_;
    const double end = searched.walk([&](int k, double knot) {
      const bool goes_on = k == 0 || position_ >= knot || (is_affine && after());
      if (goes_on) index_ = k;
      return goes_on;
    });
    Axis<T>& other = kInverse ? x_axis_ : y_axis_;
    other.walk([&](int k, double) { return k <= index_; });
    find_slopes(static_cast<T>(a.min_derivative));
    const T size = static_cast<T>(searched.size);
    point_ = {static_cast<T>(position_ - searched.start) / size,
              static_cast<T>(end - position_) / size};
    bin_ = {static_cast<T>(y_axis_.size) / static_cast<T>(x_axis_.size), slope_[0], slope_[1]};
    if (kInverse) point_ = spline::solve(bin_, point_.xi, point_.om);
  }

  __device__ Result<T> map() const {
    if (tails_ == Tails::affine && outside_) {
      const double end = before() ? -bound_ : bound_;
      const T log = math::log(tail_slope());
      return {static_cast<T>(end + rise()), kInverse ? -log : log};
    }
    if (outside_) {
      const T nan = math::Real<T>::nan;
      return tails_ == Tails::linear ? Result<T>{x_, T(0)} : Result<T>{nan, nan};
    }
    const Axis<T>& axis = kInverse ? x_axis_ : y_axis_;
    const T fraction = kInverse ? point_.xi : spline::fraction(bin_, point_);
    const T log = math::log(spline::slope(bin_, point_));
    const T part = static_cast<T>(axis.size) * fraction;
    const double y = spline::within(axis.start + static_cast<double>(part), bound_);
    return {static_cast<T>(y), kInverse ? -log : log};
  }

  __device__ T gradients(T by_y, T by_log) {
    spline::Gradients<T> g = {};
    // Where no gradient comes in, none goes out, whatever the parameters are: 0 * NaN is not 0.
    const bool any = (by_y != T(0)) | (by_log != T(0));
    if (any && !outside_) {
      g = spline::gradients<kInverse>(bin_, point_, static_cast<T>(x_axis_.size),
                                      static_cast<T>(y_axis_.size), by_y, by_log);
    } else if (tails_ == Tails::affine && any) {
      g.argument = by_y * spline::tail_derivative<kInverse>(tail_slope());
      (before() ? g.d0 : g.d1) =
          spline::tail_slope_gradient<kInverse>(tail_slope(), static_cast<T>(rise()), by_y, by_log);
    } else if (tails_ == Tails::linear && outside_) {
      g.argument = by_y;
    }
    replace(x_axis_, g.x0, g.w);
    replace(y_axis_, g.y0, g.h);
    // Likewise.
    const T at_start = g.d0 == T(0) ? T(0) : g.d0 * math::sigmoid(raw_slope_[0]);
    const T at_end = g.d1 == T(0) ? T(0) : g.d1 * math::sigmoid(raw_slope_[1]);
    const int first = tails_ == Tails::linear ? 1 : 0;
    const int last = x_axis_.bins - (tails_ == Tails::linear || tails_ == Tails::circular ? 1 : 0);
    for (int k = first; k <= last; ++k) {
      slopes_[k - first] = k == index_ ? at_start : k == index_ + 1 ? at_end : T(0);
    }
    if (tails_ == Tails::circular && index_ == last) slopes_[0] += at_end;
    return g.argument;
  }

 private:
  __device__ static SplineSettings loaded(const ElementCall& call, const BlockRows<T>& rows) {
    const SplineSettings a(call);
    rows.load({&call.inputs[1], &call.inputs[2], &call.inputs[3]},
              {a.bins, a.bins, n_slopes(a.bins, a.tails)}, call.shape);
    return a;
  }

  __device__ void place(T x) {
    x_ = x;
    position_ = static_cast<double>(x);
    if (tails_ == Tails::circular) position_ = spline::wrapped(position_, bound_);
    const double inside = spline::within(position_, bound_);
    excess_ = position_ - inside;
    position_ = inside;
    const T bound = static_cast<T>(bound_);
    outside_ = tails_ == Tails::affine     ? before() | after()
               : tails_ == Tails::circular ? false
                                           : (x < -bound) | (x > bound);
  }

  __device__ bool before() const { return excess_ < 0.0; }
  __device__ bool after() const { return excess_ > 0.0; }
  __device__ T tail_slope() const { return before() ? slope_[0] : slope_[1]; }
  __device__ double rise() const {
    return spline::tail_rise<kInverse>(excess_, static_cast<double>(tail_slope()));
  }

  __device__ void find_slopes(T least) {
    for (int i = 0; i < 2; ++i) {
      const int knot = index_ + i;
      const bool is_end = knot == 0 || knot == x_axis_.bins;
      if (tails_ == Tails::linear) {
        raw_slope_[i] = is_end ? T(0) : slopes_[knot - 1];
      } else {
        raw_slope_[i] = slopes_[tails_ == Tails::circular && knot == x_axis_.bins ? 0 : knot];
      }
      slope_[i] = tails_ == Tails::linear && is_end ? T(1) : least + math::softplus(raw_slope_[i]);
    }
  }

  __device__ void replace(const Axis<T>& axis, T by_start, T by_size) const {
    const spline::SizeGradients g = spline::size_gradients(
        static_cast<double>(by_start), static_cast<double>(by_size), axis.free, axis.least,
        axis.start, axis.size, static_cast<double>(index_), bound_);
    for (int k = 0; k < axis.bins; ++k) {
      axis.logits[k] = static_cast<T>(spline::logit_gradient(
          g, static_cast<double>(index_), static_cast<double>(k), axis.probability(k)));
    }
  }

  const Tails tails_;
  const double bound_;
  Axis<T> x_axis_, y_axis_;
  T* slopes_;
  T x_;
  double position_, excess_;  // excess: how far x is outside
  bool outside_;
  int index_;  // of the bin
  T raw_slope_[2], slope_[2];
  spline::Point<T> point_;
  spline::Bin<T> bin_;
};

// Tails are told apart as it runs.
template <typename T>
using Forward = Spline<T, false>;
template <typename T>
using Inverse = Spline<T, true>;

constexpr RowKernels kernels() {
  RowKernels found = element_kernels<Forward, Inverse>();
  found.n_variants = kSplineVariants;
  for (int i = 2; i < kSplineVariants; ++i) found.variants[i] = found.variants[i % 2];
  return found;
}

#else

constexpr int kX = 0, kY = 1;  // axes: widths, heights

template <typename T>
using Lanes = T[kRows];

// A tile of elements.
template <typename T>
class SplineTile : public TileOfElements<3, kMaxBins> {
 public:
  explicit SplineTile(const ElementCall& a)
      : call_(a),
        domain_(call_.tails == Tails::linear || call_.tails == Tails::none
                    ? static_cast<T>(call_.bound)
                    : math::Real<T>::infinity),
        searched_(call_.inverse ? kY : kX),
        least_{2 * call_.bound * call_.min_width, 2 * call_.bound * call_.min_height},
        free_{2 * call_.bound * (1 - call_.min_width * call_.bins),
              2 * call_.bound * (1 - call_.min_height * call_.bins)} {}

  static bool fits(const ElementCall& call) {
    const SplineSettings settings(call);
    return call.variant < kSplineVariants && call.widths[2] == call.widths[1] &&
           call.widths[3] == n_slopes(settings.bins, settings.tails);
  }

  // Finds the bins of the elements and where in them they lie.
  void load(const T* x, const T* const* lanes) {
    for (int t = 0; t < kRows; ++t) x_[t] = x[t];
    place(x);
    softmax(lanes[kX], kX);
    softmax(lanes[kY], kY);
    find_knots(kX);
    find_knots(kY);
    load_slopes(lanes[2]);
    find_bins();
    find_points();
  }

  void map(T* y, T* log_det) {
    if (call_.inverse) {
      map<true>(y, log_det);
    } else {
      map<false>(y, log_det);
    }
    invalid_ = 0;
    if (!any_outside()) return;
    constexpr T nan = math::Real<T>::nan;
    const bool linear = call_.tails == Tails::linear;
    for (int t = 0; t < kRows; ++t) {
      y[t] = outside(t) ? (linear ? x_[t] : nan) : y[t];
      log_det[t] = outside(t) ? (linear ? T(0) : nan) : log_det[t];
    }
    invalid_ = linear ? 0 : 1;
  }

  int invalid() const { return invalid_; }

  void gradients(const T* grad_y, const T* grad_log_det, T* grad_x) {
    const bool any = any_outside();
    alignas(64) Lanes<T> by_y, by_log_det;
    for (int t = 0; t < kRows && any; ++t) {
      by_y[t] = outside(t) ? T(0) : grad_y[t];
      by_log_det[t] = outside(t) ? T(0) : grad_log_det[t];
    }
    const T* from_y = any ? by_y : grad_y;
    const T* from_log_det = any ? by_log_det : grad_log_det;
    if (call_.inverse) {
      gradients<true>(from_y, from_log_det, grad_x);
    } else {
      gradients<false>(from_y, from_log_det, grad_x);
    }
    const bool linear = call_.tails == Tails::linear;
    for (int t = 0; t < kRows && any; ++t) {
      grad_x[t] = outside(t) ? (linear ? grad_y[t] : T(0)) : grad_x[t];
    }
  }

  // Overwrites the slopes, and what it returned before.
  const T* gradient(int operand) {
    if (operand == 2) return slope_gradients();
    find_size_gradients(operand);
    return raw_[0];
  }

 private:
  // Whether an element lies outside the spline's domain.
  bool outside(int t) const { return math::abs(x_[t]) > domain_; }
  bool any_outside() const {
    T count = 0;
#pragma omp simd reduction(+ : count)
    for (int t = 0; t < kRows; ++t) count += outside(t) ? T(1) : T(0);
    return count > T(0);
  }

  const T* slope_gradients() {
    const int bins = call_.bins;
    for (int k = 0; k <= bins; ++k) {
      for (int t = 0; t < kRows; ++t) {
        const T here = index_[t] == T(k) ? by_slope_[0][t] : T(0);
        raw_[k][t] = index_[t] == T(k - 1) ? here + by_slope_[1][t] : here;
      }
    }
    if (call_.tails == Tails::circular) {
      for (int t = 0; t < kRows; ++t) raw_[0][t] += raw_[bins][t];
    }
    return raw_[first_slope()];
  }

  void find_size_gradients(int axis) {
    Lanes<double> before, own, mean;
    for (int t = 0; t < kRows; ++t) {
      const spline::SizeGradients g = spline::size_gradients(
          static_cast<double>(by_start_[axis][t]), static_cast<double>(by_size_[axis][t]),
          free_[axis], least_[axis], start_[axis][t], size_[axis][t], wide_index_[t], call_.bound);
      before[t] = g.before;
      own[t] = g.own;
      mean[t] = g.mean;
    }
    for (int k = 0; k < call_.bins; ++k) {
      for (int t = 0; t < kRows; ++t) {
        raw_[k][t] = static_cast<T>(spline::logit_gradient(
            spline::SizeGradients{before[t], own[t], mean[t]}, wide_index_[t],
            static_cast<double>(k), numerator_[axis][k][t] * inv_total_[axis][t]));
      }
    }
  }

  int first_slope() const { return call_.tails == Tails::linear ? 1 : 0; }

  void place(const T* x) {
    const double bound = call_.bound;
    if (call_.tails == Tails::circular) {
      for (int t = 0; t < kRows; ++t) {
        position_[t] = spline::wrapped(static_cast<double>(x[t]), bound);
      }
    } else {
      for (int t = 0; t < kRows; ++t) position_[t] = static_cast<double>(x[t]);
    }
    for (int t = 0; t < kRows; ++t) {
      const double inside = spline::within(position_[t], bound);
      excess_[t] = position_[t] - inside;
      position_[t] = inside;
    }
  }

  void softmax(const T* logits, int axis) {
    const int bins = call_.bins;
    Lanes<T> largest;
    Lanes<double> total;
    for (int t = 0; t < kRows; ++t) {
      largest[t] = logits[t];
      total[t] = 0;
    }
    for (int k = 1; k < bins; ++k) {
      const T* lane = logits + k * kRows;
      for (int t = 0; t < kRows; ++t) largest[t] = lane[t] > largest[t] ? lane[t] : largest[t];
    }
    for (int k = 0; k < bins; ++k) {
      const T* lane = logits + k * kRows;
      for (int t = 0; t < kRows; ++t) {
        const double value = spline::softmax_numerator<T>(static_cast<double>(lane[t]) -
                                                          static_cast<double>(largest[t]));
        numerator_[axis][k][t] = value;
        total[t] += value;
      }
    }
    for (int t = 0; t < kRows; ++t) inv_total_[axis][t] = 1.0 / total[t];
  }

  // One row per knot; those of the ends under linear tails are never looked at.
  void load_slopes(const T* slopes) {
    T* to = raw_[first_slope()];
    for (int i = 0; i < n_slopes(call_.bins, call_.tails) * kRows; ++i) to[i] = slopes[i];
    const int bins = call_.bins;
    for (int t = 0; t < kRows; ++t) {
      if (call_.tails == Tails::linear) raw_[0][t] = raw_[bins][t] = T(0);
      if (call_.tails == Tails::circular) raw_[bins][t] = raw_[0][t];
    }
  }

  void find_knots(int axis) {
    const double least = least_[axis], bound = call_.bound;
    Lanes<double> factor;
    for (int t = 0; t < kRows; ++t) {
      factor[t] = free_[axis] * inv_total_[axis][t];
      knot_[axis][0][t] = -bound;
    }
    for (int k = 0; k < call_.bins; ++k) {
      const double* numerator = numerator_[axis][k];
      const double* here = knot_[axis][k];
      double* next = knot_[axis][k + 1];
      for (int t = 0; t < kRows; ++t) next[t] = here[t] + (least + factor[t] * numerator[t]);
    }
    for (int t = 0; t < kRows; ++t) knot_[axis][call_.bins][t] = bound;
  }

  // The last bin whose left knot is not beyond the position, and what there is to know of it.
  void find_bins() {
    const int a = searched_, b = 1 - searched_;
    Lanes<double> count;
    for (int t = 0; t < kRows; ++t) count[t] = 0;
    for (int k = 1; k < call_.bins; ++k) {
      const double* knot = knot_[a][k];
      for (int t = 0; t < kRows; ++t) count[t] += position_[t] >= knot[t] ? 1.0 : 0.0;
    }
    if (call_.tails == Tails::affine) {
      // Known whatever the knots are, which may be NaN.
      const double last = call_.bins - 1;
      for (int t = 0; t < kRows; ++t) {
        count[t] = before(t) ? 0.0 : after(t) ? last : count[t];
      }
    }
    Lanes<T> left, right;
    for (int t = 0; t < kRows; ++t) {
      const int k = static_cast<int>(count[t]);
      start_[a][t] = knot_[a][k][t];
      start_[b][t] = knot_[b][k][t];
      end_[t] = knot_[a][k + 1][t];
      size_[a][t] = numerator_[a][k][t];
      size_[b][t] = numerator_[b][k][t];
      left[t] = raw_[k][t];
      right[t] = raw_[k + 1][t];
    }
    for (int axis = 0; axis < 2; ++axis) {
      for (int t = 0; t < kRows; ++t) {
        size_[axis][t] = least_[axis] + free_[axis] * inv_total_[axis][t] * size_[axis][t];
      }
    }
    const T least = static_cast<T>(call_.min_derivative);
    for (int t = 0; t < kRows; ++t) {
      wide_index_[t] = count[t];
      index_[t] = static_cast<T>(count[t]);
      raw_slope_[0][t] = left[t];
      raw_slope_[1][t] = right[t];
      slope_[0][t] = least + math::softplus(left[t]);
      slope_[1][t] = least + math::softplus(right[t]);
    }
    if (call_.tails != Tails::linear) return;
    const T last = static_cast<T>(call_.bins - 1);
    for (int t = 0; t < kRows; ++t) {
      slope_[0][t] = index_[t] == T(0) ? T(1) : slope_[0][t];
      slope_[1][t] = index_[t] == last ? T(1) : slope_[1][t];
    }
  }

  void find_points() {
    for (int t = 0; t < kRows; ++t) {
      const T size = static_cast<T>(size_[searched_][t]);
      xi_[t] = static_cast<T>(position_[t] - start_[searched_][t]) / size;
      om_[t] = static_cast<T>(end_[t] - position_[t]) / size;
      chord_[t] = static_cast<T>(size_[kY][t]) / static_cast<T>(size_[kX][t]);
    }
    if (!call_.inverse) return;
    for (int t = 0; t < kRows; ++t) {
      const spline::Point<T> p = spline::solve(bin(t), xi_[t], om_[t]);
      xi_[t] = p.xi;
      om_[t] = p.om;
    }
  }

  spline::Bin<T> bin(int t) const { return {chord_[t], slope_[0][t], slope_[1][t]}; }

  template <bool kInverse>
  void map(T* y, T* log_det) const {
    constexpr int axis = kInverse ? kX : kY;
    for (int t = 0; t < kRows; ++t) {
      const spline::Point<T> p{xi_[t], om_[t]};
      const T fraction = kInverse ? p.xi : spline::fraction(bin(t), p);
      const T log = math::log(spline::slope(bin(t), p));
      const T part = static_cast<T>(size_[axis][t]) * fraction;
      y[t] =
          static_cast<T>(spline::within(start_[axis][t] + static_cast<double>(part), call_.bound));
      log_det[t] = kInverse ? -log : log;
    }
    if (call_.tails != Tails::affine) return;
    for (int t = 0; t < kRows; ++t) {
      const double end = before(t) ? -call_.bound : call_.bound;
      const T log = math::log(tail_slope(t));
      const bool outside = before(t) | after(t);
      y[t] = outside ? static_cast<T>(end + beyond<kInverse>(t)) : y[t];
      log_det[t] = outside ? (kInverse ? -log : log) : log_det[t];
    }
  }

  bool before(int t) const { return excess_[t] < 0.0; }
  bool after(int t) const { return excess_[t] > 0.0; }

  // In affine tails: the slope, and how far y is from the end of the spline.
  T tail_slope(int t) const { return before(t) ? slope_[0][t] : slope_[1][t]; }
  template <bool kInverse>
  double beyond(int t) const {
    return spline::tail_rise<kInverse>(excess_[t], static_cast<double>(tail_slope(t)));
  }

  template <bool kInverse>
  void gradients(const T* grad_y, const T* grad_log_det, T* grad_x) {
    for (int t = 0; t < kRows; ++t) {
      const spline::Gradients<T> g =
          spline::gradients<kInverse>(bin(t), {xi_[t], om_[t]}, static_cast<T>(size_[kX][t]),
                                      static_cast<T>(size_[kY][t]), grad_y[t], grad_log_det[t]);
      // Where no gradient comes in, none goes out, whatever the parameters are: 0 * NaN is not 0.
      const bool any = (grad_y[t] != T(0)) | (grad_log_det[t] != T(0));
      grad_x[t] = any ? g.argument : T(0);
      by_start_[kX][t] = any ? g.x0 : T(0);
      by_start_[kY][t] = any ? g.y0 : T(0);
      by_size_[kX][t] = any ? g.w : T(0);
      by_size_[kY][t] = any ? g.h : T(0);
      by_slope_[0][t] = any ? g.d0 * math::sigmoid(raw_slope_[0][t]) : T(0);
      by_slope_[1][t] = any ? g.d1 * math::sigmoid(raw_slope_[1][t]) : T(0);
    }
    if (call_.tails == Tails::affine) tail_gradients<kInverse>(grad_y, grad_log_det, grad_x);
  }

  // The gradients of elements in affine tails: nothing depends on the bins.
  template <bool kInverse>
  void tail_gradients(const T* grad_y, const T* grad_log_det, T* grad_x) {
    for (int t = 0; t < kRows; ++t) {
      const T slope = tail_slope(t), rise = static_cast<T>(beyond<kInverse>(t));
      const T by_slope =
          spline::tail_slope_gradient<kInverse>(slope, rise, grad_y[t], grad_log_det[t]);
      const bool outside = before(t) | after(t);
      const bool any = (grad_y[t] != T(0)) | (grad_log_det[t] != T(0));
      const T by_x = any ? grad_y[t] * spline::tail_derivative<kInverse>(slope) : T(0);
      grad_x[t] = outside ? by_x : grad_x[t];
      for (int axis = 0; axis < 2; ++axis) {
        by_start_[axis][t] = outside ? T(0) : by_start_[axis][t];
        by_size_[axis][t] = outside ? T(0) : by_size_[axis][t];
      }
      const T at_start = before(t) & any ? by_slope * math::sigmoid(raw_slope_[0][t]) : T(0);
      const T at_end = after(t) & any ? by_slope * math::sigmoid(raw_slope_[1][t]) : T(0);
      by_slope_[0][t] = outside ? at_start : by_slope_[0][t];
      by_slope_[1][t] = outside ? at_end : by_slope_[1][t];
    }
  }

  const SplineSettings call_;
  const T domain_;         // how far from 0 it ends
  const int searched_;     // the axis that the argument lies on
  const double least_[2];  // a bin's size is least + free * probability
  const double free_[2];
  int invalid_ = 0;
  alignas(64) Lanes<T> x_;
  alignas(64) Lanes<T> raw_[kMaxBins + 1];
  alignas(64) Lanes<double> numerator_[2][kMaxBins];  // of the softmax
  alignas(64) Lanes<double> inv_total_[2];
  alignas(64) Lanes<double> knot_[2][kMaxBins + 1];
  alignas(64) Lanes<double> position_, excess_, wide_index_, end_, start_[2], size_[2];
  alignas(64) Lanes<T> index_, xi_, om_, chord_, raw_slope_[2], slope_[2];
  alignas(64) Lanes<T> by_start_[2], by_size_[2], by_slope_[2];
};

constexpr RowKernels kernels() {
  return element_kernels_of_variants<SplineTile, kSplineVariants>();
}

#endif

}  // namespace

namespace BSL_ISA {
extern const RowKernels rational_quadratic_spline_kernels = kernels();
}  // namespace BSL_ISA
}  // namespace bsl
