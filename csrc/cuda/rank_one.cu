// A team of threads for each row: it reads the row for its dot products, in float64 whatever T is,
// and once more to add it up. What is summed over all rows is summed by a second kernel, from a few
// numbers that the first one leaves for each row.
#include "cuda/rank_one.h"

#include "core/bijectors/planar.h"
#include "core/bijectors/radial.h"
#include "cuda/team.h"

namespace bsl {
namespace {

// What the threads of a team add up for a row.
constexpr int kMostDots = 5;
struct Dots {
  double of[kMostDots] = {};
};

// An element of a row's tensors, with that of y's gradient.
template <typename T>
struct Elements {
  T row[3], grad;
};

// What rows are added up with.
template <typename T>
struct Coefficients {
  T of[kRankOneCoefficients];
};

template <typename T>
struct Planar {
  static constexpr int n_rows = 3, n_scalars = 1;

  template <bool kGradient>
  __device__ static void add(Dots& dots, const Elements<T>& e) {
    const double z = static_cast<double>(e.row[0]), u = static_cast<double>(e.row[1]);
    const double w = static_cast<double>(e.row[2]), g = static_cast<double>(e.grad);
    dots.of[0] += w * z;
    dots.of[1] += w * u;
    dots.of[2] += w * w;
    if (!kGradient) return;
    dots.of[3] += g * u;
    dots.of[4] += g * w;
  }
  template <bool kGradient>
  static constexpr int n_dots = kGradient ? 5 : 3;

  __device__ static planar::Map<T> map(const Dots& dots, const T (&scalars)[2]) {
    return planar::map(static_cast<T>(dots.of[0] + static_cast<double>(scalars[0])),
                       static_cast<T>(dots.of[1]), static_cast<T>(dots.of[2]));
  }

  __device__ static T forward(const Dots& dots, const T (&scalars)[2], int64_t,
                              Coefficients<T>& out) {
    const planar::Map<T> p = map(dots, scalars);
    out = {{p.t, p.t * p.k}};
    return planar::log_det(p);
  }

  __device__ static T y(const Coefficients<T>& c, const Elements<T>& e) {
    return e.row[0] + (c.of[0] * e.row[1] + c.of[1] * e.row[2]);
  }

  __device__ static void backward(const Dots& dots, const T (&scalars)[2], int64_t, T grad_log,
                                  Coefficients<T>& out, T (&by_scalars)[2]) {
    const planar::Map<T> p = map(dots, scalars);
    const planar::Gradients<T> g =
        planar::gradients(p, static_cast<T>(dots.of[1]), static_cast<T>(dots.of[2]),
                          static_cast<T>(dots.of[3]), static_cast<T>(dots.of[4]), grad_log);
    out = {{g.a, g.wu, g.twice_ww, p.t, p.t * p.k}};
    by_scalars[0] = g.a;
  }

  // By an element of row `which`.
  __device__ static T gradient(int which, const Coefficients<T>& c, const Elements<T>& e) {
    const T z = e.row[0], u = e.row[1], w = e.row[2], g = e.grad;
    if (which == 0) return g + c.of[0] * w;
    if (which == 1) return c.of[3] * g + c.of[1] * w;
    return (c.of[4] * g + c.of[0] * z) + (c.of[1] * u + c.of[2] * w);
  }
};

template <typename T>
struct Radial {
  static constexpr int n_rows = 2, n_scalars = 2;

  template <bool kGradient>
  __device__ static void add(Dots& dots, const Elements<T>& e) {
    const double d = static_cast<double>(e.row[0]) - static_cast<double>(e.row[1]);
    dots.of[0] += d * d;
    if (kGradient) dots.of[1] += static_cast<double>(e.grad) * d;
  }
  template <bool kGradient>
  static constexpr int n_dots = kGradient ? 2 : 1;

  __device__ static radial::Map<T> map(const Dots& dots, const T (&scalars)[2]) {
    return radial::map(static_cast<T>(math::sqrt(dots.of[0])), scalars[0], scalars[1]);
  }

  __device__ static T forward(const Dots& dots, const T (&scalars)[2], int64_t width,
                              Coefficients<T>& out) {
    const radial::Map<T> p = map(dots, scalars);
    out = {{p.c}};
    return radial::log_det(p, static_cast<T>(width - 1));
  }

  __device__ static T y(const Coefficients<T>& c, const Elements<T>& e) {
    return e.row[0] + c.of[0] * (e.row[0] - e.row[1]);
  }

  __device__ static void backward(const Dots& dots, const T (&scalars)[2], int64_t width,
                                  T grad_log, Coefficients<T>& out, T (&by_scalars)[2]) {
    const radial::Map<T> p = map(dots, scalars);
    const radial::Gradients<T> g = radial::gradients(
        p, static_cast<T>(width - 1), scalars[0], scalars[1], static_cast<T>(dots.of[1]), grad_log);
    out = {{p.c, g.along}};
    by_scalars[0] = g.raw_alpha;
    by_scalars[1] = g.raw_beta;
  }

  __device__ static T gradient(int which, const Coefficients<T>& c, const Elements<T>& e) {
    const T moved = c.of[0] * e.grad + c.of[1] * (e.row[0] - e.row[1]);
    return which == 0 ? e.grad + moved : -moved;
  }
};

// Where a row's tensors lie.
template <typename T, int n_rows>
struct RowData {
  const T* row[3];
  const T* grad;  // null in a forward pass

  __device__ RowData(const RankOneCall& a, const Operand* grad_y, int64_t r) {
    for (int i = 0; i < n_rows; ++i) row[i] = at(a.rows[i], a.shape, r);
    grad = grad_y == nullptr ? nullptr : at(*grad_y, a.shape, r);
  }

  __device__ static const T* at(const Operand& operand, const DeviceShape& shape, int64_t r) {
    return static_cast<const T*>(operand.data) + offset_at(r, operand.strides, shape);
  }
};

// f(elements, which in its group) for a part of a row.
template <typename T, bool kGradient, int n_rows, typename F>
__device__ __forceinline__ void for_each_of(const RowData<T, n_rows>& data, Part part, const F& f) {
  Group<T> rows[n_rows], grad = {};
  for (int i = 0; i < n_rows; ++i) rows[i] = read<T, T>(data.row[i], part);
  if (kGradient) grad = read<T, T>(data.grad, part);
  for_each(grad, part, [&](T g, int j) {
    Elements<T> e;
    for (int i = 0; i < n_rows; ++i) e.row[i] = rows[i].at[j];
    e.grad = g;
    f(e, j);
  });
}

template <typename T, template <typename> class Map, bool kGradient, int n_rows>
__device__ __forceinline__ Dots dots_of(const RowData<T, n_rows>& data, int64_t width,
                                        const Team& team) {
  Dots dots;
  for_each_part<T>(0, width, team.rank, team.size, [&](Part part) {
    for_each_of<T, kGradient>(
        data, part, [&](const Elements<T>& e, int) { Map<T>::template add<kGradient>(dots, e); });
  });
  for (int i = 0; i < Map<T>::template n_dots<kGradient>; ++i) dots.of[i] = team.sum(dots.of[i]);
  return dots;
}

template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kThreads)
    rank_one_forward_kernel(const __grid_constant__ RankOneForward a, int size) {
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t r) {
    const RowData<T, Map<T>::n_rows> data(a, nullptr, r);
    T scalars[2] = {};
    for (int i = 0; i < Map<T>::n_scalars; ++i) scalars[i] = element<T>(a.scalars[i], a.shape, r);
    const Dots dots = dots_of<T, Map, false>(data, a.width, team);
    Coefficients<T> c;
    const T log_det = Map<T>::forward(dots, scalars, a.width, c);
    if (team.rank == 0) static_cast<T*>(a.log_det)[r] = log_det;
    for_each_part<T>(0, a.width, team.rank, team.size, [&](Part part) {
      Group<T> y;
      for_each_of<T, false>(data, part,
                            [&](const Elements<T>& e, int j) { y.at[j] = Map<T>::y(c, e); });
      write(y, static_cast<T*>(a.y) + r * a.width, part);
    });
  });
}

template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kThreads)
    rank_one_backward_kernel(const __grid_constant__ RankOneBackward a, int size) {
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t r) {
    const RowData<T, Map<T>::n_rows> data(a, &a.grad_y, r);
    T scalars[2] = {}, by_scalars[2];
    for (int i = 0; i < Map<T>::n_scalars; ++i) scalars[i] = element<T>(a.scalars[i], a.shape, r);
    const Dots dots = dots_of<T, Map, true>(data, a.width, team);
    Coefficients<T> c;
    Map<T>::backward(dots, scalars, a.width, element<T>(a.grad_log_det, a.shape, r), c, by_scalars);
    if (team.rank == 0) {
      for (int i = 0; i < Map<T>::n_scalars; ++i) write_element(a.grads[3 + i], r, by_scalars[i]);
      if (a.coefficients != nullptr) static_cast<Coefficients<T>*>(a.coefficients)[r] = c;
    }
    for_each_part<T>(0, a.width, team.rank, team.size, [&](Part part) {
      Group<T> by[Map<T>::n_rows];
      for_each_of<T, true>(data, part, [&](const Elements<T>& e, int j) {
        for (int i = 0; i < Map<T>::n_rows; ++i) by[i].at[j] = Map<T>::gradient(i, c, e);
      });
      for (int i = 0; i < Map<T>::n_rows; ++i) {
        if (a.grads[i] != nullptr) write(by[i], static_cast<T*>(a.grads[i]) + r * a.width, part);
      }
    });
  });
}

// Adds up gradients over the rows of a chunk: a block for each 32 columns, whose warps share the
// rows.
template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kThreads)
    rank_one_sums_kernel(const __grid_constant__ RankOneBackward a, int64_t tiles) {
  constexpr int n = Map<T>::n_rows;
  const int64_t chunk = blockIdx.x / tiles;
  const int64_t column = blockIdx.x % tiles * kColumns + threadIdx.x % kColumns;
  const int64_t end = least((chunk + 1) * kRankOneChunk, a.shape.numel);
  double total[n] = {};
  for (int64_t r = chunk * kRankOneChunk + threadIdx.x / kColumns; r < end; r += kParts) {
    const RowData<T, n> data(a, &a.grad_y, r);
    if (column >= a.width) continue;
    const Coefficients<T> c = static_cast<const Coefficients<T>*>(a.coefficients)[r];
    Elements<T> e;
    for (int i = 0; i < n; ++i) e.row[i] = data.row[i][column];
    e.grad = data.grad[column];
    for (int i = 1; i < n; ++i) total[i] += static_cast<double>(Map<T>::gradient(i, c, e));
  }
  for (int i = 1; i < n; ++i) {
    total[i] = combined_parts(total[i], [](double x, double y) { return x + y; });
    if (a.sums[i] != nullptr && threadIdx.x < kColumns && column < a.width) {
      a.sums[i][chunk * a.width + column] = total[i];
    }
  }
}

template <typename T, template <typename> class Map>
void forward(const RankOneForward& a, cudaStream_t stream) {
  const int team = team_size(a.width);
  rank_one_forward_kernel<T, Map>
      <<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

template <typename T, template <typename> class Map>
void backward(const RankOneBackward& a, cudaStream_t stream) {
  const int team = team_size(a.width);
  rank_one_backward_kernel<T, Map>
      <<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
  const int64_t tiles = (a.width + kColumns - 1) / kColumns;
  const unsigned n = static_cast<unsigned>(rank_one_chunks(a.shape.numel) * tiles);
  if (a.coefficients != nullptr && n > 0) {
    rank_one_sums_kernel<T, Map><<<n, kThreads, 0, stream>>>(a, tiles);
  }
}

template <template <typename> class Map>
constexpr RankOneKernels kKernels = {forward<float, Map>, forward<double, Map>,
                                     backward<float, Map>, backward<double, Map>};

}  // namespace

namespace BSL_ISA {
extern const RankOneKernels planar_kernels = kKernels<Planar>;
extern const RankOneKernels radial_kernels = kKernels<Radial>;
}  // namespace BSL_ISA
}  // namespace bsl
