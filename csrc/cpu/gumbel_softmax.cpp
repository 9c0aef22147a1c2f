#include "cpu/gumbel_softmax.h"

#include "core/distributions/gumbel_softmax.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

// Draws the rows of a call.
template <typename T, typename Call>
class Sampler {
 public:
  explicit Sampler(const Call& a)
      : a_(a),
        logits_(static_cast<const T*>(a.logits)),
        temperature_(static_cast<T>(a.temperature)) {}

  // The scores of `rows` narrow rows from `row` on, one after the other, to kNarrow * kRows +
  // kBlock numbers.
  void scores(int64_t row, int rows, T* out) {
    const int64_t first = row * a_.classes;
    const int64_t n = rows * a_.classes;
    const int64_t at = row % a_.logit_rows;
    if (at + rows <= a_.logit_rows) {
      const T* in = logits_ + at * a_.classes;
      for (int64_t i = 0; i < n; ++i) out[i] = in[i];
    } else {
      for (int r = 0; r < rows; ++r) {
        const T* in = logits_ + (row + r) % a_.logit_rows * a_.classes;
        for (int64_t c = 0; c < a_.classes; ++c) out[r * a_.classes + c] = in[c];
      }
    }
    for (int64_t i = n; i % kBlock != 0; ++i) out[i] = T(0);
    for (int64_t start = 0; start < n; start += kBlock) {
      const T* u = uniform_block<T>(a_.seed, a_.stream, static_cast<uint64_t>(first + start), u_);
      T* block = out + start;
#pragma GCC ivdep
      for (int i = 0; i < kBlock; ++i) {
        block[i] = gumbel_softmax::score(block[i], u[i], temperature_);
      }
    }
  }

  // Likewise those of one wide row.
  void wide_scores(int64_t row, T* out) {
    const T* in = logits_ + row % a_.logit_rows * a_.classes;
    const int64_t first = row * a_.classes;
    alignas(64) T block[kBlock];
    for_each_block(0, a_.classes, [&](int64_t start, int length) {
      const T* u = uniform_block<T>(a_.seed, a_.stream, static_cast<uint64_t>(first + start), u_);
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
  alignas(64) T u_[kNoiseBuffer];
};

// Numbers that the scores of a tile's rows take.
constexpr int kScores = kNarrow * kRows + kBlock;

template <typename T>
void forward_chunk(const GumbelSoftmaxForward& a, int64_t chunk) {
  Sampler<T, GumbelSoftmaxForward> sampler(a);
  const int classes = static_cast<int>(a.classes);
  alignas(64) T scores[kScores], tile[kNarrow * kRows], max[kRows], sums[kRows], index[kRows];
  const int64_t end = a.plan.end(chunk);
  if (classes > kNarrow) {
    for (int64_t row = a.plan.begin(chunk); row < end; ++row) {
      T* out = static_cast<T*>(a.sample) + row * a.classes;
      sampler.wide_scores(row, out);
      const T most = row_max(out, a.classes);
      int64_t winner = 0;
      while (a.hard && winner < a.classes - 1 && !(out[winner] == most)) ++winner;
      const T sum = row_weights(out, a.classes, most, out);
      if (a.hard) {
        for (int64_t c = 0; c < a.classes; ++c) out[c] = nan_or_zero(sum);
        out[winner] += T(1);
      } else {
        for (int64_t c = 0; c < a.classes; ++c) out[c] /= sum;
      }
    }
    return;
  }
  for (int64_t row = a.plan.begin(chunk); row < end; row += kRows) {
    const int rows = end - row < kRows ? static_cast<int>(end - row) : kRows;
    sampler.scores(row, rows, scores);
    transpose(scores, rows, classes, tile);
    tile_max(tile, classes, max);
    if (a.hard) {
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
      if (a.hard) {
        const T own = static_cast<T>(c);
        for (int r = 0; r < kRows; ++r) {
          y[r] = (index[r] == own ? T(1) : T(0)) + nan_or_zero(sums[r]);
        }
      } else {
        for (int r = 0; r < kRows; ++r) y[r] /= sums[r];
      }
    }
    transpose_back(tile, rows, classes, static_cast<T*>(a.sample) + row * a.classes);
  }
}

template <typename T>
void backward_chunk(const GumbelSoftmaxBackward& a, int64_t chunk) {
  Sampler<T, GumbelSoftmaxBackward> sampler(a);
  const int classes = static_cast<int>(a.classes);
  const T temperature = sampler.temperature();
  alignas(64) T scores[kScores], tile[kNarrow * kRows], grads[kNarrow * kRows];
  alignas(64) T max[kRows], sums[kRows], means[kRows];
  const int64_t end = a.plan.end(chunk);
  if (classes > kNarrow) {
    for (int64_t row = a.plan.begin(chunk); row < end; ++row) {
      const T* grad = static_cast<const T*>(a.grad) + row * a.classes;
      T* out = static_cast<T*>(a.grad_logits) + row * a.classes;
      sampler.wide_scores(row, out);
      const T total = row_weights(out, a.classes, row_max(out, a.classes), out);
      double mean = 0;
      for_each_block(0, a.classes, [&](int64_t start, int length) {
        for (int i = 0; i < length; ++i) out[start + i] /= total;
        for (int i = 0; i < length; ++i) scores[i] = out[start + i] * grad[start + i];
        mean += sum(scores, length);
      });
      const T rounded = static_cast<T>(mean);
      for (int64_t c = 0; c < a.classes; ++c) {
        out[c] = gumbel_softmax::gradient(out[c], grad[c], rounded, temperature);
      }
    }
    return;
  }
  for (int64_t row = a.plan.begin(chunk); row < end; row += kRows) {
    const int rows = end - row < kRows ? static_cast<int>(end - row) : kRows;
    sampler.scores(row, rows, scores);
    transpose(scores, rows, classes, tile);
    tile_max(tile, classes, max);
    tile_weights(tile, classes, max, sums);
    transpose(static_cast<const T*>(a.grad) + row * a.classes, rows, classes, grads);
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
    transpose_back(tile, rows, classes, static_cast<T*>(a.grad_logits) + row * a.classes);
  }
}

template <typename T>
void forward(const GumbelSoftmaxForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { forward_chunk<T>(a, chunk); });
}

template <typename T>
void backward(const GumbelSoftmaxBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { backward_chunk<T>(a, chunk); });
}

}  // namespace

namespace BSL_ISA {
extern const GumbelSoftmaxKernels gumbel_softmax_kernels = {forward<float>, forward<double>,
                                                            backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
