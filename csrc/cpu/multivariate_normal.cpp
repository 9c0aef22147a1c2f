#include "cpu/multivariate_normal.h"

#include <algorithm>
#include <cstring>

#include "core/distributions/multivariate_normal.h"
#include "cpu/noise.h"
#include "cpu/parallel.h"
#include "cpu/steps/simd.h"

namespace bsl {
namespace {

constexpr int kRows = MultivariateNormal::kRowsTogether;
// Samples that are worked on together, as many as there are registers for sums.
constexpr int kSamples = kVectorBytes == 64 ? 4 : 2;
// Products in a chunk of work.
constexpr int64_t kProducts = int64_t{1} << 16;
// Vectors of squares that are added up before their sum is added in double.
constexpr int64_t kStrip = 64;

// Vectors of columns that all of kRows rows have are read in place. The columns beyond are fewer
// than this. They are copied, with zeros behind.
template <typename T>
constexpr int kEnd = 4 * VectorOf<T>::length;
static_assert(kRows <= VectorOf<double>::length + 2, "more columns beyond");
static_assert(kEnd<float> <= MultivariateNormal::kMostBeyond, "more room for noise");

int64_t blocks_of(int64_t n) { return (n + kRows - 1) / kRows; }

// Calls f(first row, number of rows as a constant) for all rows of a triangle. Rows at one end are
// short, at the other long. A pair of blocks from both ends has as many numbers as any other pair,
// so that chunks are equal work.
template <typename F>
void for_each_rows(int64_t n, int64_t n_samples, const F& f) {
  if (n == 0) return;
  const int64_t last = blocks_of(n) - 1, pairs = last / 2 + 1;
  const int64_t products = kRows * n * std::max<int64_t>(n_samples, 1);
  const int64_t together = std::max<int64_t>(kProducts / products, 1);
  const auto rows = [&](int64_t first) {
    if (first + kRows <= n) {
      f(first, std::integral_constant<int, kRows>());
      return;
    }
    for (; first < n; ++first) f(first, std::integral_constant<int, 1>());
  };
  parallel_chunks((pairs + together - 1) / together, [&](int64_t chunk) {
    const int64_t end = std::min(pairs, (chunk + 1) * together);
    for (int64_t pair = chunk * together; pair < end; ++pair) {
      rows(pair * kRows);
      if (last - pair != pair) rows((last - pair) * kRows);
    }
  });
}

void fill_normal(float* out, const NoiseRange& range) {
  BSL_ISA::noise_kernels.normal_float(out, range);
}
void fill_normal(double* out, const NoiseRange& range) {
  BSL_ISA::noise_kernels.normal_double(out, range);
}

// The arrays of a call.
template <typename T>
struct Arrays {
  explicit Arrays(const MultivariateNormal& a)
      : n(a.n),
        loc(static_cast<const T*>(a.loc)),
        raw(static_cast<const T*>(a.raw_scale)),
        lower(static_cast<const T*>(a.lower)),
        prior{static_cast<T>(a.prior_loc), T(1) / static_cast<T>(a.prior_scale),
              math::log(static_cast<T>(a.prior_scale))},
        squares(a.scratch),
        own{reinterpret_cast<T*>(a.scratch + blocks_of(a.n)), own[0] + a.n},
        noise(own[1] + a.n) {}

  // The noise of all samples, [n_samples, n]. What is read beyond the last is multiplied by 0.
  void draw(const MultivariateNormal& a) const {
    fill_normal(noise, {a.n_samples * n, a.seed, a.stream, 0});
    std::fill_n(noise + a.n_samples * n, kEnd<T>, T(0));
  }

  int64_t n;
  const T *loc, *raw, *lower;
  normal::Prior<T> prior;
  double* squares;  // a sum for each block of rows
  T* own[2];        // [n], two numbers for each weight
  T* noise;
};

// Functions of pointers alone, which compilers vectorise.
template <Parametrization P, typename T>
__attribute__((noinline)) void diagonal_forward(int64_t n, const normal::Prior<T> prior,
                                                const T* loc, const T* raw, T* scale, T* kl) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const auto d = multivariate_normal::diagonal<P>(loc[i], raw[i], prior);
    scale[i] = d.scale;
    kl[i] = d.kl;
  }
}

template <Parametrization P, typename T>
__attribute__((noinline)) void diagonal_backward(int64_t n, const normal::Prior<T> prior, T by_kl,
                                                 const T* by_sample, const T* by_scale,
                                                 const T* loc, const T* raw, T* grad_loc,
                                                 T* grad_raw) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const auto g =
        multivariate_normal::backward<P>(by_sample[i], by_scale[i], by_kl, loc[i], raw[i], prior);
    grad_loc[i] = g.of[0];
    grad_raw[i] = g.of[1];
  }
}

// Calls f with the parametrization as a constant.
template <typename F>
void with_parametrization(int parametrization, const F& f) {
  switch (static_cast<Parametrization>(parametrization)) {
    case Parametrization::softplus:
      return f(std::integral_constant<Parametrization, Parametrization::softplus>());
    case Parametrization::scale:
      return f(std::integral_constant<Parametrization, Parametrization::scale>());
    case Parametrization::log_scale:
      return f(std::integral_constant<Parametrization, Parametrization::log_scale>());
    case Parametrization::log_var:
      return f(std::integral_constant<Parametrization, Parametrization::log_var>());
  }
}

// R rows of the factor below its diagonal, from row `first` on.
template <int R, typename T>
struct Rows {
  // `in_place`: columns that are read in place.
  Rows(const T* lower, int64_t n, int64_t begin, int64_t in_place) : first(begin), whole(in_place) {
    for (int r = 0; r < R; ++r) {
      row[r] = lower + (first + r) * n;
      std::fill_n(end[r], kEnd<T>, T(0));
      std::copy_n(row[r] + whole, first + r - whole, end[r]);
    }
  }

  int64_t first, whole;
  const T* row[R];
  T end[R][kEnd<T>];
};

template <typename T>
BSL_HD T total(const Vector<T>& v) {
  T lanes[VectorOf<T>::length];
  store(lanes, v);
  for (int half = VectorOf<T>::length / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Adds to `sums` the products of R rows with N samples of noise, which are n apart. Returns the sum
// of the rows' squares over that of the prior's scale, if it is wanted.
template <int N, bool kSquares, int R, typename T>
double multiply(const Rows<R, T>& rows, const T* noise, int64_t n, T inv_scale, T (&sums)[R][4]) {
  constexpr int length = VectorOf<T>::length;
  Vector<T> products[R][4] = {};
  Vector<T> squares[R] = {};
  const auto add = [&](const T* const(&from)[R], const T* to) {
    Vector<T> row[R];
    for (int r = 0; r < R; ++r) row[r] = load(from[r]);
    for (int s = 0; s < N; ++s) {
      const Vector<T> e = load(to + s * n);
      for (int r = 0; r < R; ++r) products[r][s] += row[r] * e;
    }
    if constexpr (kSquares) {
      for (int r = 0; r < R; ++r) {
        const Vector<T> scaled = row[r] * inv_scale;
        squares[r] += scaled * scaled;
      }
    }
  };
  double square = 0;
  const auto take_squares = [&] {
    if constexpr (kSquares) {
      Vector<T> all = squares[0];
      for (int r = 1; r < R; ++r) all += squares[r];
      for (int r = 0; r < R; ++r) squares[r] = Vector<T>{};
      square += static_cast<double>(total<T>(all));
    }
  };
  for (int64_t column = 0; column < rows.whole;) {
    const int64_t strip = std::min(rows.whole, column + kStrip * length);
    for (; column < strip; column += length) {
      const T* from[R];
      for (int r = 0; r < R; ++r) from[r] = rows.row[r] + column;
      add(from, noise + column);
    }
    take_squares();
  }
  for (int k = 0; k < 2; ++k) {
    const T* from[R];
    for (int r = 0; r < R; ++r) from[r] = rows.end[r] + k * length;
    add(from, noise + rows.whole + k * length);
  }
  take_squares();
  for (int r = 0; r < R; ++r) {
    for (int s = 0; s < N; ++s) sums[r][s] = total<T>(products[r][s]);
  }
  return square;
}

template <typename T>
bool forward(const MultivariateNormalForward& a) {
  const Arrays<T> m(a);
  const int64_t n = a.n;
  T* const samples = static_cast<T*>(a.samples);
  const int64_t n_samples = samples == nullptr ? 0 : a.n_samples;
  with_parametrization(a.parametrization, [&](auto p) {
    diagonal_forward<decltype(p)::value, T>(n, m.prior, m.loc, m.raw, m.own[0], m.own[1]);
  });
  if (static_cast<Parametrization>(a.parametrization) == Parametrization::scale) {
    for (int64_t i = 0; i < n; ++i) {
      if (m.raw[i] < T(0)) return false;
    }
  }
  if (n_samples > 0) m.draw(a);
  std::fill_n(m.squares, blocks_of(n), 0.0);
  if (n_samples == 0 && a.kl == nullptr) return true;
  for_each_rows(n, n_samples, [&](int64_t first, auto count) {
    constexpr int R = decltype(count)::value;
    constexpr int length = VectorOf<T>::length;
    const Rows<R, T> rows(m.lower, n, first, first / length * length);
    bool squares = a.kl != nullptr;
    const auto take = [&](int64_t sample, auto together) {
      constexpr int N = decltype(together)::value;
      const T* noise = m.noise + sample * n;
      T sums[R][4];
      if (squares) {
        m.squares[first / kRows] += multiply<N, true>(rows, noise, n, m.prior.inv_scale, sums);
        squares = false;
      } else {
        multiply<N, false>(rows, noise, n, m.prior.inv_scale, sums);
      }
      for (int s = 0; s < N; ++s) {
        for (int r = 0; r < R; ++r) {
          const int64_t i = first + r;
          samples[(sample + s) * n + i] = m.loc[i] + m.own[0][i] * noise[s * n + i] + sums[r][s];
        }
      }
    };
    int64_t sample = 0;
    for (; sample + kSamples <= n_samples; sample += kSamples) {
      take(sample, std::integral_constant<int, kSamples>());
    }
    for (; sample < n_samples; ++sample) take(sample, std::integral_constant<int, 1>());
    if (squares) take(0, std::integral_constant<int, 0>());
  });
  if (a.kl != nullptr) {
    double kl = 0, square = 0;
    for (int64_t i = 0; i < n; ++i) kl += static_cast<double>(m.own[1][i]);
    for (int64_t block = 0; block < blocks_of(n); ++block) square += m.squares[block];
    *static_cast<T*>(a.kl) = static_cast<T>(kl + 0.5 * square);
  }
  return true;
}

// The gradient of R rows of the factor: sums over samples of a gradient times noise, and that of
// the divergence if there is one.
template <bool kKl, int R, typename T>
void pull_back_rows(const Rows<R, T>& rows, int64_t n, int64_t n_samples, const T* grads,
                    const T* noise, T by_kl, T inv_scale, T* out) {
  constexpr int length = VectorOf<T>::length;
  const T by_ratio = by_kl * inv_scale;  // not the square, which may overflow
  const auto columns = [&](const T* const(&from)[R], const T* e, T* const(&to)[R]) {
    Vector<T> sums[R][2] = {};
    if constexpr (kKl) {
      for (int r = 0; r < R; ++r) {
        for (int k = 0; k < 2; ++k)
          sums[r][k] = by_ratio * (load(from[r] + k * length) * inv_scale);
      }
    }
    const T* g = n_samples == 0 ? nullptr : grads + rows.first;
    for (int64_t s = 0; s < n_samples; ++s, g += n, e += n) {
      const Vector<T> e0 = load(e), e1 = load(e + length);
      for (int r = 0; r < R; ++r) {
        sums[r][0] += g[r] * e0;
        sums[r][1] += g[r] * e1;
      }
    }
    for (int r = 0; r < R; ++r) {
      store(to[r], sums[r][0]);
      store(to[r] + length, sums[r][1]);
    }
  };
  const T* from[R];
  T* to[R];
  for (int64_t column = 0; column < rows.whole; column += 2 * length) {
    for (int r = 0; r < R; ++r) {
      from[r] = rows.row[r] + column;
      to[r] = out + (rows.first + r) * n + column;
    }
    columns(from, noise + column, to);
  }
  T end[R][kEnd<T>];
  for (int k = 0; k < kEnd<T>; k += 2 * length) {
    for (int r = 0; r < R; ++r) {
      from[r] = rows.end[r] + k;
      to[r] = end[r] + k;
    }
    columns(from, noise + rows.whole + k, to);
  }
  for (int r = 0; r < R; ++r) {
    const int64_t diagonal = rows.first + r;
    T* const row = out + diagonal * n;
    std::copy_n(end[r], diagonal - rows.whole, row + rows.whole);
    std::fill_n(row + diagonal, n - diagonal, T(0));
  }
}

template <typename T>
void backward(const MultivariateNormalBackward& a) {
  const Arrays<T> m(a);
  const int64_t n = a.n;
  const T* const grads = static_cast<const T*>(a.grad_samples);
  const int64_t n_samples = grads == nullptr ? 0 : a.n_samples;
  const T by_kl = a.grad_kl == nullptr ? T(0) : *static_cast<const T*>(a.grad_kl);
  if (n_samples > 0) m.draw(a);
  if (a.grad_loc != nullptr || a.grad_raw_scale != nullptr) {
    T *const by_sample = m.own[0], *const by_scale = m.own[1];
    std::fill_n(by_sample, 2 * n, T(0));
    for (int64_t s = 0; s < n_samples; ++s) {
      const T *const g = grads + s * n, *const e = m.noise + s * n;
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) {
        by_sample[i] += g[i];
        by_scale[i] += g[i] * e[i];
      }
    }
    const auto to = [](void* grad, T* otherwise) {
      return grad == nullptr ? otherwise : static_cast<T*>(grad);
    };
    with_parametrization(a.parametrization, [&](auto p) {
      diagonal_backward<decltype(p)::value, T>(n, m.prior, by_kl, by_sample, by_scale, m.loc, m.raw,
                                               to(a.grad_loc, by_sample),
                                               to(a.grad_raw_scale, by_scale));
    });
  }
  if (a.grad_lower == nullptr) return;
  for_each_rows(n, n_samples, [&](int64_t first, auto count) {
    constexpr int step = 2 * VectorOf<T>::length;
    constexpr int R = decltype(count)::value;
    const Rows<R, T> rows(m.lower, n, first, first / step * step);
    const auto pull_back = by_kl == T(0) ? pull_back_rows<false, R, T> : pull_back_rows<true, R, T>;
    pull_back(rows, n, n_samples, grads, m.noise, by_kl, m.prior.inv_scale,
              static_cast<T*>(a.grad_lower));
  });
}

}  // namespace

namespace BSL_ISA {
extern const MultivariateNormalKernels multivariate_normal_kernels = {
    forward<float>, forward<double>, backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
