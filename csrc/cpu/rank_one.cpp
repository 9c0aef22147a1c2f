// Rows are taken in tiles of kTile, which stay in the cache while they are read twice: for their
// dot products, where SIMD lanes are columns, and to be added up. Between, lanes are rows.
#include "cpu/rank_one.h"

#include "core/bijectors/planar.h"
#include "core/bijectors/radial.h"
#include "cpu/block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

constexpr int kTile = 32;
static_assert(kBlock % kTile == 0, "");

template <typename T>
using Lanes = T[kTile];

// Dot products, in float64 whatever T is: one may be much smaller than its terms.
struct PlanarDots {
  double wz, wu, ww, gu, gw;
};

// In one pass; those of w and u, and those with g, only if they are asked for.
template <bool kPlane, bool kGradient, typename T>
PlanarDots planar_dots(const T* z, const T* u, const T* w, const T* g, int64_t n) {
  double wz = 0, wu = 0, ww = 0, gu = 0, gw = 0;
#pragma omp simd reduction(+ : wz, wu, ww, gu, gw)
  for (int64_t i = 0; i < n; ++i) {
    const double w_i = static_cast<double>(w[i]);
    wz += w_i * static_cast<double>(z[i]);
    if constexpr (kPlane) {
      wu += w_i * static_cast<double>(u[i]);
      ww += w_i * w_i;
    }
    if constexpr (kGradient) {
      gu += static_cast<double>(g[i]) * static_cast<double>(u[i]);
      gw += static_cast<double>(g[i]) * w_i;
    }
  }
  return {wz, wu, ww, gu, gw};
}

template <typename T>
double squared_distance(const T* a, const T* b, int64_t n) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    total += d * d;
  }
  return total;
}

// The product of g with a - b.
template <typename T>
double dot_difference(const T* g, const T* a, const T* b, int64_t n) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    total += static_cast<double>(g[i]) * (static_cast<double>(a[i]) - static_cast<double>(b[i]));
  }
  return total;
}

// Where the rows of a block begin, and the scalars that go with them.
template <typename T>
class Rows {
 public:
  explicit Rows(const RankOneCall& a)
      : z_(a.z, a.shape),
        first_(a.first, a.shape),
        second_(a.second, a.shape),
        scalars_{{a.scalars[0], a.shape}, {a.scalars[1], a.shape}} {}

  void load(int64_t start, int length) {
    z = z_.block(start, length);
    first = first_.block(start, length);
    second = second_.block(start, length);
    for (int i = 0; i < 2; ++i) scalar[i] = scalars_[i].block(start, length);
  }

  const T* const* z;
  const T* const* first;
  const T* const* second;
  const T* scalar[2];

 private:
  RowReader<T> z_, first_, second_;
  Reader<T> scalars_[2];
};

// Where the gradients of a tile's rows go; null where not wanted. Sums are those of all rows of a
// chunk.
template <typename T>
struct Out {
  T* rows[3];
  double* sums[3];
  T* scalars[2];

  // f(j) is the gradient of column j of row `r`.
  template <typename F>
  void put(int which, int r, int64_t width, const F& f) const {
    if (rows[which] != nullptr) {
      T* out = rows[which] + r * width;
#pragma GCC ivdep
      for (int64_t j = 0; j < width; ++j) out[j] = f(j);
    }
    if (sums[which] != nullptr) {
      double* out = sums[which];
#pragma GCC ivdep
      for (int64_t j = 0; j < width; ++j) out[j] += static_cast<double>(f(j));
    }
  }
};

template <typename T>
void clear(Lanes<T>& lanes) {
  for (int i = 0; i < kTile; ++i) lanes[i] = T(0);
}

template <typename T>
struct PlanarTile {
  explicit PlanarTile(const RankOneCall& a) : width(a.width) {}

  // The dot products of `n` rows from `i` on; those of parameters only where they change.
  template <bool kGradient>
  void load(const Rows<T>& rows, const T* const* grad_y, int i, int n) {
    clear(wz);
    clear(wu);
    clear(ww);
    clear(gu);
    clear(gw);
    for (int r = 0; r < n; ++r) {
      const T* z = rows.z[i + r];
      const T* u = rows.first[i + r];
      const T* w = rows.second[i + r];
      const T* g = kGradient ? grad_y[i + r] : nullptr;
      const bool same = r > 0 && u == rows.first[i + r - 1] && w == rows.second[i + r - 1];
      const PlanarDots d = same ? planar_dots<false, kGradient>(z, u, w, g, width)
                                : planar_dots<true, kGradient>(z, u, w, g, width);
      wz[r] = static_cast<T>(d.wz + static_cast<double>(rows.scalar[0][i + r]));
      wu[r] = same ? wu[r - 1] : static_cast<T>(d.wu);
      ww[r] = same ? ww[r - 1] : static_cast<T>(d.ww);
      gu[r] = static_cast<T>(d.gu);
      gw[r] = static_cast<T>(d.gw);
    }
  }

  void forward(const Rows<T>& rows, int i, int n, T* y, T* log_det) {
    load<false>(rows, nullptr, i, n);
    Lanes<T> by_u, by_w;
    for (int r = 0; r < kTile; ++r) {
      const planar::Map<T> p = planar::map(wz[r], wu[r], ww[r]);
      by_u[r] = p.t;
      by_w[r] = p.t * p.k;
      log_det[r] = planar::log_det(p);
    }
    for (int r = 0; r < n; ++r) {
      const T* z = rows.z[i + r];
      const T* u = rows.first[i + r];
      const T* w = rows.second[i + r];
      T* out = y + r * width;
      const T cu = by_u[r], cw = by_w[r];
#pragma GCC ivdep
      for (int64_t j = 0; j < width; ++j) out[j] = z[j] + (cu * u[j] + cw * w[j]);
    }
  }

  void backward(const Rows<T>& rows, const T* const* grad_y, const T* grad_log, int i, int n,
                const Out<T>& out) {
    load<true>(rows, grad_y, i, n);
    Lanes<T> by_a, by_wu, twice_ww, t, tk;
    for (int r = 0; r < kTile; ++r) {
      const planar::Map<T> p = planar::map(wz[r], wu[r], ww[r]);
      const planar::Gradients<T> g =
          planar::gradients(p, wu[r], ww[r], gu[r], gw[r], grad_log[i + r]);
      by_a[r] = g.a;
      by_wu[r] = g.wu;
      twice_ww[r] = g.twice_ww;
      t[r] = p.t;
      tk[r] = p.t * p.k;
    }
    for (int r = 0; r < n; ++r) {
      const T* z = rows.z[i + r];
      const T* u = rows.first[i + r];
      const T* w = rows.second[i + r];
      const T* g = grad_y[i + r];
      const T ca = by_a[r], cu = by_wu[r], cw = twice_ww[r], ct = t[r], ck = tk[r];
      out.put(0, r, width, [=](int64_t j) { return g[j] + ca * w[j]; });
      out.put(1, r, width, [=](int64_t j) { return ct * g[j] + cu * w[j]; });
      out.put(2, r, width,
              [=](int64_t j) { return (ck * g[j] + ca * z[j]) + (cu * u[j] + cw * w[j]); });
      if (out.scalars[0] != nullptr) out.scalars[0][r] = ca;
    }
  }

  const int64_t width;
  alignas(64) Lanes<T> wz, wu, ww, gu, gw;  // wz with b
};

template <typename T>
struct RadialTile {
  explicit RadialTile(const RankOneCall& a) : width(a.width), others(static_cast<T>(a.width - 1)) {}

  void load(const Rows<T>& rows, int i, int n) {
    Lanes<double> squares;
    clear(squares);
    for (int r = 0; r < n; ++r) {
      squares[r] = squared_distance(rows.z[i + r], rows.first[i + r], width);
    }
    for (int r = 0; r < kTile; ++r) distance[r] = static_cast<T>(math::sqrt(squares[r]));
  }

  void forward(const Rows<T>& rows, int i, int n, T* y, T* log_det) {
    load(rows, i, n);
    Lanes<T> c;
    for (int r = 0; r < kTile; ++r) {
      const radial::Map<T> p =
          radial::map(distance[r], rows.scalar[0][i + r], rows.scalar[1][i + r]);
      c[r] = p.c;
      log_det[r] = radial::log_det(p, others);
    }
    for (int r = 0; r < n; ++r) {
      const T* z = rows.z[i + r];
      const T* z0 = rows.first[i + r];
      T* out = y + r * width;
      const T factor = c[r];
#pragma GCC ivdep
      for (int64_t j = 0; j < width; ++j) out[j] = z[j] + factor * (z[j] - z0[j]);
    }
  }

  void backward(const Rows<T>& rows, const T* const* grad_y, const T* grad_log, int i, int n,
                const Out<T>& out) {
    load(rows, i, n);
    Lanes<T> along, c, by_raw_alpha, by_raw_beta;
    clear(along);
    for (int r = 0; r < n; ++r) {
      along[r] =
          static_cast<T>(dot_difference(grad_y[i + r], rows.z[i + r], rows.first[i + r], width));
    }
    for (int r = 0; r < kTile; ++r) {
      const T raw_alpha = rows.scalar[0][i + r], raw_beta = rows.scalar[1][i + r];
      const radial::Map<T> p = radial::map(distance[r], raw_alpha, raw_beta);
      const radial::Gradients<T> g =
          radial::gradients(p, others, raw_alpha, raw_beta, along[r], grad_log[i + r]);
      along[r] = g.along;
      by_raw_alpha[r] = g.raw_alpha;
      by_raw_beta[r] = g.raw_beta;
      c[r] = p.c;
    }
    for (int r = 0; r < n; ++r) {
      const T* z = rows.z[i + r];
      const T* z0 = rows.first[i + r];
      const T* g = grad_y[i + r];
      const T cg = c[r], cd = along[r];
      out.put(0, r, width, [=](int64_t j) { return g[j] + (cg * g[j] + cd * (z[j] - z0[j])); });
      out.put(1, r, width, [=](int64_t j) { return -(cg * g[j] + cd * (z[j] - z0[j])); });
      if (out.scalars[0] != nullptr) out.scalars[0][r] = by_raw_alpha[r];
      if (out.scalars[1] != nullptr) out.scalars[1][r] = by_raw_beta[r];
    }
  }

  const int64_t width;
  const T others;
  alignas(64) Lanes<T> distance;
};

template <typename T, typename Tile>
void forward_chunk(const RankOneForward& a, int64_t chunk) {
  Rows<T> rows(a);
  Tile tile(a);
  T* y = static_cast<T*>(a.y);
  T* log_det = static_cast<T*>(a.log_det);
  alignas(64) Lanes<T> logs;
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    rows.load(start, length);
    for (int i = 0; i < length; i += kTile) {
      const int n = length - i < kTile ? length - i : kTile;
      tile.forward(rows, i, n, y + (start + i) * a.width, logs);
      for (int r = 0; r < n; ++r) log_det[start + i + r] = logs[r];
    }
  });
}

template <typename T, typename Tile>
void backward_chunk(const RankOneBackward& a, int64_t chunk) {
  Rows<T> rows(a);
  RowReader<T> grad_y_reader(a.grad_y, a.shape);
  Reader<T> grad_log_reader(a.grad_log_det, a.shape);
  Tile tile(a);
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    rows.load(start, length);
    const T* const* grad_y = grad_y_reader.block(start, length);
    const T* grad_log = grad_log_reader.block(start, length);
    for (int i = 0; i < length; i += kTile) {
      const int n = length - i < kTile ? length - i : kTile;
      const auto at = [&](int k, int64_t size) {
        T* data = static_cast<T*>(a.grads[k]);
        return data == nullptr ? nullptr : data + (start + i) * size;
      };
      Out<T> out = {{}, {}, {at(3, 1), at(4, 1)}};
      for (int k = 0; k < 3; ++k) {
        out.rows[k] = at(k, a.width);
        out.sums[k] = a.sums[k] == nullptr ? nullptr : a.sums[k] + chunk * a.width;
      }
      tile.backward(rows, grad_y, grad_log, i, n, out);
    }
  });
}

template <typename T, template <typename> class Tile>
void forward(const RankOneForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { forward_chunk<T, Tile<T>>(a, chunk); });
}

template <typename T, template <typename> class Tile>
void backward(const RankOneBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { backward_chunk<T, Tile<T>>(a, chunk); });
}

template <template <typename> class Tile>
constexpr RankOneKernels kKernels = {forward<float, Tile>, forward<double, Tile>,
                                     backward<float, Tile>, backward<double, Tile>};

}  // namespace

namespace BSL_ISA {
extern const RankOneKernels planar_kernels = kKernels<PlanarTile>;
extern const RankOneKernels radial_kernels = kKernels<RadialTile>;
}  // namespace BSL_ISA
}  // namespace bsl
