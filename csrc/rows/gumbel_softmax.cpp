// Samples for each row of logits. `number` is the temperature; `option` asks for classes.
#include "core/distributions/gumbel_softmax.h"

#include "softmax_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

#ifdef __CUDACC__

// Noise is made once: the scores of a row are kept where its result will be, each by the thread
// that reads it again. Writes them; the largest one.
template <typename T>
__device__ T write_scores(const SoftmaxCall& a, const TeamRow<T>& span, int64_t row, T* out) {
  const T temperature = static_cast<T>(a.number);
  const uint64_t seed = static_cast<uint64_t>(*a.seed);
  const T* logits = static_cast<const T*>(a.x) + row % a.x_rows * a.columns - span.begin;
  T most = -math::Real<T>::infinity;
  for_each_part<T>(span.begin, span.end, span.team.rank, span.team.size, [&](Part part) {
    const Group<T> u = draw<false, T>(seed, a.stream, static_cast<uint64_t>(part.start));
    Group<T> x = read<T, T>(logits, part);
    for_each(x, part, [&](T& value, int j) {
      value = gumbel_softmax::score(value, u.at[j], temperature);
      most = larger(value, most);
    });
    write(x, out, part);
  });
  return span.team.max(most);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gumbel_softmax_forward_kernel(const __grid_constant__ SoftmaxForward a, int size) {
  T* out = static_cast<T*>(a.result);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.columns);
    const T most = write_scores(a, span, row, out);
    const T sum = span.weights(out, most);
    if (!a.option) {
      span.map(out, out, [&](T score, int64_t) { return weight(score, most) / sum; });
      return;
    }
    // The first of the largest.
    int64_t winner = a.columns - 1;
    span.visit(out,
               [&](T score, int64_t c) { winner = score == most ? least(c, winner) : winner; });
    winner = team.combined(winner, [](int64_t x, int64_t y) { return least(x, y); });
    span.map(out, out,
             [&](T, int64_t c) { return (c == winner ? T(1) : T(0)) + nan_or_zero(sum); });
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gumbel_softmax_backward_kernel(const __grid_constant__ SoftmaxBackward a, int size) {
  const T* grad = static_cast<const T*>(a.grad.data);
  T* out = static_cast<T*>(a.grad_x);
  const T temperature = static_cast<T>(a.number);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.columns);
    const T most = write_scores(a, span, row, out);
    const T sum = span.weights(out, most);
    double total = 0;
    span.map(out, out, [&](T score, int64_t c) {
      const T y = weight(score, most) / sum;
      total += static_cast<double>(y * grad[span.begin + c]);
      return y;
    });
    const T mean = static_cast<T>(team.sum(total));
    span.map(out, out, [&](T y, int64_t c) {
      return gumbel_softmax::gradient(y, grad[span.begin + c], mean, temperature);
    });
  });
}

template <typename T>
void forward(const SoftmaxForward& a, cudaStream_t stream) {
  const int team = team_size(a.columns);
  gumbel_softmax_forward_kernel<T>
      <<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

template <typename T>
void backward(const SoftmaxBackward& a, cudaStream_t stream) {
  const int team = team_size(a.columns);
  gumbel_softmax_backward_kernel<T>
      <<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

#else

// Draws the rows of a call.
template <typename T, typename Call>
class Sampler {
 public:
  explicit Sampler(const Call& a)
      : a_(a),
        logits_(static_cast<const T*>(a.x)),
        temperature_(static_cast<T>(a.number)),
        seed_(static_cast<uint64_t>(*a.seed)) {}

  // The scores of `rows` narrow rows from `row` on, one after the other, to kNarrow * kRows +
  // kBlock numbers.
  void scores(int64_t row, int rows, T* out) {
    const int64_t first = row * a_.columns;
    const int64_t n = rows * a_.columns;
    const int64_t at = row % a_.x_rows;
    if (at + rows <= a_.x_rows) {
      const T* in = logits_ + at * a_.columns;
      for (int64_t i = 0; i < n; ++i) out[i] = in[i];
    } else {
      for (int r = 0; r < rows; ++r) {
        const T* in = logits_ + (row + r) % a_.x_rows * a_.columns;
        for (int64_t c = 0; c < a_.columns; ++c) out[r * a_.columns + c] = in[c];
      }
    }
    for (int64_t i = n; i % kBlock != 0; ++i) out[i] = T(0);
    for (int64_t start = 0; start < n; start += kBlock) {
      const T* u = uniform_block<T>(seed_, a_.stream, static_cast<uint64_t>(first + start), u_);
      T* block = out + start;
#pragma GCC ivdep
      for (int i = 0; i < kBlock; ++i) {
        block[i] = gumbel_softmax::score(block[i], u[i], temperature_);
      }
    }
  }

  // Likewise those of one wide row.
  void wide_scores(int64_t row, T* out) {
    const T* in = logits_ + row % a_.x_rows * a_.columns;
    const int64_t first = row * a_.columns;
    alignas(64) T block[kBlock];
    for_each_block(0, a_.columns, [&](int64_t start, int length) {
      const T* u = uniform_block<T>(seed_, a_.stream, static_cast<uint64_t>(first + start), u_);
      for (int i = 0; i < kBlock; ++i) block[i] = in[start + (i < length ? i : 0)];
#pragma GCC ivdep
      for (int i = 0; i < kBlock; ++i) {
        block[i] = gumbel_softmax::score(block[i], u[i], temperature_);
      }
      for (int i = 0; i < length; ++i) out[start + i] = block[i];
    });
  }

  T temperature() const { return temperature_; }

 private:
  const Call& a_;
  const T* logits_;
  const T temperature_;
  const uint64_t seed_;
  alignas(64) T u_[kNoiseBuffer];
};

// Numbers that the scores of a tile's rows take.
constexpr int kScores = kNarrow * kRows + kBlock;

template <typename T>
void forward_chunk(const SoftmaxForward& a, int64_t chunk) {
  Sampler<T, SoftmaxForward> sampler(a);
  const int classes = static_cast<int>(a.columns);
  alignas(64) T scores[kScores], tile[kNarrow * kRows], max[kRows], sums[kRows], index[kRows];
  const int64_t end = a.shape.plan.end(chunk);
  if (classes > kNarrow) {
    for (int64_t row = a.shape.plan.begin(chunk); row < end; ++row) {
      T* out = static_cast<T*>(a.result) + row * a.columns;
      sampler.wide_scores(row, out);
      const T most = row_max(out, a.columns);
      int64_t winner = 0;
      while (a.option && winner < a.columns - 1 && !(out[winner] == most)) ++winner;
      const T sum = row_weights(out, a.columns, most, out);
      if (a.option) {
        for (int64_t c = 0; c < a.columns; ++c) out[c] = nan_or_zero(sum);
        out[winner] += T(1);
      } else {
        for (int64_t c = 0; c < a.columns; ++c) out[c] /= sum;
      }
    }
    return;
  }
  for (int64_t row = a.shape.plan.begin(chunk); row < end; row += kRows) {
    const int rows = end - row < kRows ? static_cast<int>(end - row) : kRows;
    sampler.scores(row, rows, scores);
    transpose(scores, rows, classes, tile);
    tile_max(tile, classes, max);
    if (a.option) {
      // The first of the largest.
      for (int r = 0; r < kRows; ++r) index[r] = T(0);
      for (int c = classes - 1; c >= 0; --c) {
        const T* x = tile + c * kRows;
        for (int r = 0; r < kRows; ++r) index[r] = x[r] == max[r] ? static_cast<T>(c) : index[r];
      }
    }
    tile_weights(tile, classes, max, sums);
    for (int c = 0; c < classes; ++c) {
      T* y = tile + c * kRows;
      if (a.option) {
        const T own = static_cast<T>(c);
        for (int r = 0; r < kRows; ++r) {
          y[r] = (index[r] == own ? T(1) : T(0)) + nan_or_zero(sums[r]);
        }
      } else {
        for (int r = 0; r < kRows; ++r) y[r] /= sums[r];
      }
    }
    transpose_back(tile, rows, classes, static_cast<T*>(a.result) + row * a.columns);
  }
}

template <typename T>
void backward_chunk(const SoftmaxBackward& a, int64_t chunk) {
  Sampler<T, SoftmaxBackward> sampler(a);
  const int classes = static_cast<int>(a.columns);
  const T temperature = sampler.temperature();
  alignas(64) T scores[kScores], tile[kNarrow * kRows], grads[kNarrow * kRows];
  alignas(64) T max[kRows], sums[kRows], means[kRows];
  const int64_t end = a.shape.plan.end(chunk);
  if (classes > kNarrow) {
    for (int64_t row = a.shape.plan.begin(chunk); row < end; ++row) {
      const T* grad = static_cast<const T*>(a.grad.data) + row * a.columns;
      T* out = static_cast<T*>(a.grad_x) + row * a.columns;
      sampler.wide_scores(row, out);
      const T total = row_weights(out, a.columns, row_max(out, a.columns), out);
      double mean = 0;
      for_each_block(0, a.columns, [&](int64_t start, int length) {
        for (int i = 0; i < length; ++i) out[start + i] /= total;
        for (int i = 0; i < length; ++i) scores[i] = out[start + i] * grad[start + i];
        mean += sum(scores, length);
      });
      const T rounded = static_cast<T>(mean);
      for (int64_t c = 0; c < a.columns; ++c) {
        out[c] = gumbel_softmax::gradient(out[c], grad[c], rounded, temperature);
      }
    }
    return;
  }
  for (int64_t row = a.shape.plan.begin(chunk); row < end; row += kRows) {
    const int rows = end - row < kRows ? static_cast<int>(end - row) : kRows;
    sampler.scores(row, rows, scores);
    transpose(scores, rows, classes, tile);
    tile_max(tile, classes, max);
    tile_weights(tile, classes, max, sums);
    transpose(static_cast<const T*>(a.grad.data) + row * a.columns, rows, classes, grads);
    for (int r = 0; r < kRows; ++r) means[r] = T(0);
    for (int i = 0; i < classes * kRows; i += kRows) {
      for (int r = 0; r < kRows; ++r) {
        tile[i + r] /= sums[r];
        means[r] += tile[i + r] * grads[i + r];
      }
    }
    for (int i = 0; i < classes * kRows; i += kRows) {
      for (int r = 0; r < kRows; ++r) {
        tile[i + r] = gumbel_softmax::gradient(tile[i + r], grads[i + r], means[r], temperature);
      }
    }
    transpose_back(tile, rows, classes, static_cast<T*>(a.grad_x) + row * a.columns);
  }
}

template <typename T>
void forward(const SoftmaxForward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) { forward_chunk<T>(a, chunk); });
}

template <typename T>
void backward(const SoftmaxBackward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) { backward_chunk<T>(a, chunk); });
}

#endif

}  // namespace

namespace BSL_ISA {
extern const SoftmaxKernels gumbel_softmax_rsample_kernels = {forward<float>, forward<double>,
                                                              backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
