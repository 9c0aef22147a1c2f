// The log probability of a class for each row of logits.
#include "core/distributions/categorical.h"

#include "softmax_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

using categorical::Row;

#ifdef __CUDACC__

template <typename T>
__global__ void __launch_bounds__(kThreads)
    categorical_forward_kernel(const __grid_constant__ SoftmaxForward a, int size) {
  const T* logits = static_cast<const T*>(a.x);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.columns);
    const T max = span.max(logits);
    const T sum = span.weights(logits, max);
    if (team.rank != 0) return;
    const int64_t k = a.index[row];
    const bool valid = k >= 0 && k < a.columns;
    const T logit = valid ? logits[span.begin + k] : math::Real<T>::nan;
    static_cast<T*>(a.result)[row] = categorical::log_prob(logit, Row<T>{max, sum});
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    categorical_backward_kernel(const __grid_constant__ SoftmaxBackward a, int size) {
  const T* logits = static_cast<const T*>(a.x);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.columns);
    const T max = span.max(logits);
    const T sum = span.weights(logits, max);
    const int64_t k = a.index[row];
    const bool valid = k >= 0 && k < a.columns;
    const T grad = valid ? element<T>(a.grad, a.shape, row) : math::Real<T>::nan;
    const T factor = -(grad / sum);
    span.map(logits, static_cast<T*>(a.grad_x), [&](T logit, int64_t c) {
      const T others = weight(logit, max) * factor;
      return c == k ? others + grad : others;
    });
  });
}

template <typename T>
void forward(const SoftmaxForward& a, cudaStream_t stream) {
  const int team = team_size(a.columns);
  categorical_forward_kernel<T><<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

template <typename T>
void backward(const SoftmaxBackward& a, cudaStream_t stream) {
  const int team = team_size(a.columns);
  categorical_backward_kernel<T>
      <<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

#else

template <typename T>
void forward_chunk(const SoftmaxForward& a, int64_t chunk) {
  const T* logits = static_cast<const T*>(a.x);
  const int classes = static_cast<int>(a.columns);
  Reducer<T> reducer(a.shape.plan, a.reduction, chunk, a.result, a.partials);
  alignas(64) T tile[kNarrow * kRows], max[kBlock], sums[kBlock], log_prob[kBlock];
  bool bad = false;
  for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk),
                 [&](int64_t start, int length) {
                   const T* first = logits + start * a.columns;
                   for (int i = length; i < kBlock; ++i) max[i] = sums[i] = T(1);
                   if (classes <= kNarrow) {
                     for (int i = 0; i < length; i += kRows) {
                       const int rows = length - i < kRows ? length - i : kRows;
                       transpose(first + static_cast<int64_t>(i) * classes, rows, classes, tile);
                       tile_max(tile, classes, max + i);
                       tile_weights(tile, classes, max + i, sums + i);
                     }
                   } else {
                     for (int i = 0; i < length; ++i) {
                       const T* row = first + i * a.columns;
                       max[i] = row_max(row, a.columns);
                       sums[i] = row_weights<T>(row, a.columns, max[i], nullptr);
                     }
                   }
                   for (int i = 0; i < length; ++i) {
                     const int64_t k = a.index[start + i];
                     const bool valid = k >= 0 && k < a.columns;
                     bad |= !valid;
                     log_prob[i] = valid ? first[i * a.columns + k] : math::Real<T>::nan;
                   }
                   for (int i = length; i < kBlock; ++i) log_prob[i] = T(0);
                   for (int i = 0; i < kBlock; ++i) {
                     log_prob[i] = categorical::log_prob(log_prob[i], Row<T>{max[i], sums[i]});
                   }
                   reducer.add(log_prob, start, length);
                 });
  if (bad) __atomic_store_n(a.invalid, 1, __ATOMIC_RELAXED);
}

template <typename T>
void backward_chunk(const SoftmaxBackward& a, int64_t chunk) {
  const T* logits = static_cast<const T*>(a.x);
  T* grad_logits = static_cast<T*>(a.grad_x);
  const int classes = static_cast<int>(a.columns);
  Reader<T> grad_reader(a.grad, a.shape);
  alignas(64) T tile[kNarrow * kRows], max[kRows], sums[kRows];
  for_each_block(
      a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int length) {
        const T* grad = grad_reader.block(start, length);
        const T* first = logits + start * a.columns;
        T* out = grad_logits + start * a.columns;
        if (classes <= kNarrow) {
          for (int i = 0; i < length; i += kRows) {
            const int rows = length - i < kRows ? length - i : kRows;
            const int64_t offset = static_cast<int64_t>(i) * classes;
            transpose(first + offset, rows, classes, tile);
            tile_max(tile, classes, max);
            tile_weights(tile, classes, max, sums);
            for (int r = 0; r < kRows; ++r) {
              sums[r] = -(grad[i + (r < rows ? r : 0)] / sums[r]);
            }
            for (int c = 0; c < classes; ++c) {
              for (int r = 0; r < kRows; ++r) tile[c * kRows + r] *= sums[r];
            }
            transpose_back(tile, rows, classes, out + offset);
          }
        } else {
          for (int i = 0; i < length; ++i) {
            T* row = out + i * a.columns;
            const T* in = first + i * a.columns;
            const T factor = -(grad[i] / row_weights(in, a.columns, row_max(in, a.columns), row));
            for (int64_t c = 0; c < a.columns; ++c) row[c] *= factor;
          }
        }
        for (int i = 0; i < length; ++i) {
          const int64_t k = a.index[start + i];
          if (k >= 0 && k < a.columns) out[i * a.columns + k] += grad[i];
        }
      });
}

template <typename T>
void forward(const SoftmaxForward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) { forward_chunk<T>(a, chunk); });
  combine_partials<T>(a.shape.plan, a.partials, a.result);
}

template <typename T>
void backward(const SoftmaxBackward& a) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) { backward_chunk<T>(a, chunk); });
}

#endif

}  // namespace

namespace BSL_ISA {
extern const SoftmaxKernels categorical_log_prob_kernels = {forward<float>, forward<double>,
                                                            backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
