#include "cpu/categorical.h"

#include "core/distributions/categorical.h"
#include "cpu/block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

// Up to this many classes, a tile of rows is transposed, and SIMD lanes are rows; beyond, classes.
constexpr int kNarrow = 64;
constexpr int kRows = 32;
static_assert(kBlock % kRows == 0, "");

template <typename T>
BSL_HD T larger(T a, T b) {
  return a > b ? a : b;
}

// A tile of `rows` rows as [classes][kRows]; the lanes beyond are copies of the last row.
template <typename T>
void transpose(const T* logits, int rows, int classes, T* tile) {
  for (int r = 0; r < kRows; ++r) {
    const T* row = logits + static_cast<int64_t>(r < rows ? r : rows - 1) * classes;
    for (int c = 0; c < classes; ++c) tile[c * kRows + r] = row[c];
  }
}

// Replaces a tile's logits by exp(l - max).
template <typename T>
void exponentiate(T* tile, int classes, T* max, T* sum) {
  for (int r = 0; r < kRows; ++r) max[r] = tile[r];
  for (int c = 1; c < classes; ++c) {
    for (int r = 0; r < kRows; ++r) max[r] = larger(tile[c * kRows + r], max[r]);
  }
  for (int r = 0; r < kRows; ++r) sum[r] = T(0);
  for (int c = 0; c < classes; ++c) {
    for (int r = 0; r < kRows; ++r) {
      const T w = categorical::weight(tile[c * kRows + r], max[r]);
      tile[c * kRows + r] = w;
      sum[r] += w;
    }
  }
}

// A row of many classes; `weights` takes exp(l - max) if it is wanted.
template <typename T>
categorical::Row<T> reduce_row(const T* logits, int64_t classes, T* weights) {
  T max = logits[0];
#pragma omp simd reduction(max : max)
  for (int64_t c = 0; c < classes; ++c) max = logits[c] > max ? logits[c] : max;
  alignas(64) T block[kBlock];
  double sum_of_blocks = 0;
  for (int64_t start = 0; start < classes; start += kBlock) {
    const int length =
        classes - start < kBlock ? static_cast<int>(classes - start) : static_cast<int>(kBlock);
    T* out = weights == nullptr ? block : weights + start;
    for (int i = 0; i < length; ++i) out[i] = categorical::weight(logits[start + i], max);
    sum_of_blocks += sum(out, length);
  }
  return {max, static_cast<T>(sum_of_blocks)};
}

template <typename T>
void forward_chunk(const CategoricalForward& a, int64_t chunk) {
  const T* logits = static_cast<const T*>(a.logits);
  const int classes = static_cast<int>(a.classes);
  Reducer<T> reducer(a.plan, a.reduction, chunk, a.log_prob, Storage::native, a.partials);
  alignas(64) T tile[kNarrow * kRows], max[kBlock], sums[kBlock], log_prob[kBlock];
  bool bad = false;
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* first = logits + start * a.classes;
    for (int i = length; i < kBlock; ++i) max[i] = sums[i] = T(1);
    if (classes <= kNarrow) {
      for (int i = 0; i < length; i += kRows) {
        const int rows = length - i < kRows ? length - i : kRows;
        transpose(first + static_cast<int64_t>(i) * classes, rows, classes, tile);
        exponentiate(tile, classes, max + i, sums + i);
      }
    } else {
      for (int i = 0; i < length; ++i) {
        const categorical::Row<T> row = reduce_row<T>(first + i * a.classes, a.classes, nullptr);
        max[i] = row.max;
        sums[i] = row.sum;
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
      log_prob[i] = categorical::log_prob(log_prob[i], categorical::Row<T>{max[i], sums[i]});
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
        exponentiate(tile, classes, max, sums);
        for (int r = 0; r < kRows; ++r) {
          sums[r] = -(grad[i + (r < rows ? r : 0)] / sums[r]);
        }
        for (int c = 0; c < classes; ++c) {
          for (int r = 0; r < kRows; ++r) tile[c * kRows + r] *= sums[r];
        }
        for (int r = 0; r < rows; ++r) {
          T* row = out + offset + static_cast<int64_t>(r) * classes;
          for (int c = 0; c < classes; ++c) row[c] = tile[c * kRows + r];
        }
      }
    } else {
      for (int i = 0; i < length; ++i) {
        T* row = out + i * a.classes;
        const T factor = -(grad[i] / reduce_row<T>(first + i * a.classes, a.classes, row).sum);
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
  combine_partials<T>(a.plan, a.partials, a.log_prob, Storage::native);
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
