#include "cpu/categorical.h"

#include "core/distributions/categorical.h"
#include "cpu/block.h"
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

using categorical::Row;

template <typename T>
void forward_chunk(const CategoricalForward& a, int64_t chunk) {
  const T* logits = static_cast<const T*>(a.logits);
  const int classes = static_cast<int>(a.classes);
  Reducer<T> reducer(a.plan, a.reduction, chunk, a.log_prob, a.partials);
  alignas(64) T tile[kNarrow * kRows], max[kBlock], sums[kBlock], log_prob[kBlock];
  bool bad = false;
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* first = logits + start * a.classes;
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
        const T* row = first + i * a.classes;
        max[i] = row_max(row, a.classes);
        sums[i] = row_weights<T>(row, a.classes, max[i], nullptr);
      }
    }
    for (int i = 0; i < length; ++i) {
      const int64_t k = a.index[start + i];
      const bool valid = k >= 0 && k < a.classes;
      bad |= !valid;
      log_prob[i] = valid ? first[i * a.classes + k] : math::Real<T>::nan;
    }
    for (int i = length; i < kBlock; ++i) log_prob[i] = T(0);
    for (int i = 0; i < kBlock; ++i) {
      log_prob[i] = categorical::log_prob(log_prob[i], Row<T>{max[i], sums[i]});
    }
    reducer.add(log_prob, start, length);
  });
  if (bad) __atomic_store_n(a.bad_index, 1, __ATOMIC_RELAXED);
}

template <typename T>
void backward_chunk(const CategoricalBackward& a, int64_t chunk) {
  const T* logits = static_cast<const T*>(a.logits);
  T* grad_logits = static_cast<T*>(a.grad_logits);
  const int classes = static_cast<int>(a.classes);
  Reader<T> grad_reader(a.grad, a.shape);
  alignas(64) T tile[kNarrow * kRows], max[kRows], sums[kRows];
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* grad = grad_reader.block(start, length);
    const T* first = logits + start * a.classes;
    T* out = grad_logits + start * a.classes;
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
        T* row = out + i * a.classes;
        const T* in = first + i * a.classes;
        const T factor = -(grad[i] / row_weights(in, a.classes, row_max(in, a.classes), row));
        for (int64_t c = 0; c < a.classes; ++c) row[c] *= factor;
      }
    }
    for (int i = 0; i < length; ++i) {
      const int64_t k = a.index[start + i];
      if (k >= 0 && k < a.classes) out[i * a.classes + k] += grad[i];
    }
  });
}

template <typename T>
void forward(const CategoricalForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { forward_chunk<T>(a, chunk); });
  combine_partials<T>(a.plan, a.partials, a.log_prob);
}

template <typename T>
void backward(const CategoricalBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { backward_chunk<T>(a, chunk); });
}

}  // namespace

namespace BSL_ISA {
extern const CategoricalKernels categorical_kernels = {forward<float>, forward<double>,
                                                       backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
