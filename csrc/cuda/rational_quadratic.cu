// The spline of cpu/rational_quadratic.cpp, a thread for each element. What that keeps for every
// bin is computed again in every walk over them: numerators of softmaxes, knots. They are float64
// whatever T is, see there.
#include "core/bijectors/rational_quadratic.h"

#include "cuda/element_kernels.h"

namespace bsl {
namespace {

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

}  // namespace

namespace BSL_ISA {
extern const RowKernels rational_quadratic_spline_kernels = kernels();
}  // namespace BSL_ISA
}  // namespace bsl
