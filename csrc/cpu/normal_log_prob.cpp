#include "cpu/normal_log_prob.h"

#include "cpu/block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

template <typename T, Parametrization P>
void forward_chunk(const NormalLogProbForward& a, int64_t chunk) {
  Reader<T> x_reader(a.x, a.shape), loc_reader(a.loc, a.shape), raw_reader(a.raw_scale, a.shape);
  Reducer<T> reducer(a.plan, a.reduction, chunk, static_cast<T*>(a.log_prob), a.partials);
  alignas(64) T log_prob[kBlock];
  bool bad = false;
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* x = x_reader.block(start, length);
    const T* loc = loc_reader.block(start, length);
    const T* raw = raw_reader.block(start, length);
    if constexpr (P == Parametrization::scale) {
      int negative = 0;
      for (int i = 0; i < kBlock; ++i) negative |= raw[i] < T(0);
      bad |= negative != 0;
    }
    for (int i = 0; i < kBlock; ++i) log_prob[i] = normal::log_prob<P>(x[i], loc[i], raw[i]);
    reducer.add(log_prob, start, length);
  });
  if (bad) __atomic_store_n(a.bad_scale, 1, __ATOMIC_RELAXED);
}

template <typename T, Parametrization P>
void backward_chunk(const NormalLogProbBackward& a, int64_t chunk) {
  Reader<T> x_reader(a.x, a.shape), loc_reader(a.loc, a.shape), raw_reader(a.raw_scale, a.shape);
  Reader<T> grad_reader(a.grad, a.shape);
  Writer<T> grad_x(static_cast<T*>(a.grad_x)), grad_loc(static_cast<T*>(a.grad_loc));
  Writer<T> grad_raw(static_cast<T*>(a.grad_raw_scale));
  alignas(64) T log_scale[kBlock], factor[kBlock], by_loc[kBlock];
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* x = x_reader.block(start, length);
    const T* loc = loc_reader.block(start, length);
    const T* raw = raw_reader.block(start, length);
    const T* grad = grad_reader.block(start, length);
    for (int i = 0; i < kBlock; ++i) {
      const normal::Density<T> d = normal::density<P>(raw[i]);
      log_scale[i] = d.log_scale;
      factor[i] = d.factor;
    }
    if (grad_x || grad_loc) {
      for (int i = 0; i < kBlock; ++i) {
        by_loc[i] =
            grad[i] * normal::log_prob_grad_loc<P, T>(x[i], loc[i], {log_scale[i], factor[i]});
      }
      grad_loc.store(by_loc, start, length);
    }
    if (grad_x) {
      T* out = grad_x.block(start, length);
      for (int i = 0; i < kBlock; ++i) out[i] = -by_loc[i];
      grad_x.commit(start, length);
    }
    if (grad_raw) {
      T* out = grad_raw.block(start, length);
      for (int i = 0; i < kBlock; ++i) {
        out[i] = grad[i] *
                 normal::log_prob_grad_raw<P, T>(x[i], loc[i], raw[i], {log_scale[i], factor[i]});
      }
      grad_raw.commit(start, length);
    }
  });
}

template <typename T>
void forward(const NormalLogProbForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    switch (a.parametrization) {
      case Parametrization::softplus:
        return forward_chunk<T, Parametrization::softplus>(a, chunk);
      case Parametrization::scale:
        return forward_chunk<T, Parametrization::scale>(a, chunk);
      case Parametrization::log_scale:
        return forward_chunk<T, Parametrization::log_scale>(a, chunk);
      case Parametrization::log_var:
        return forward_chunk<T, Parametrization::log_var>(a, chunk);
    }
  });
  combine_partials(a.plan, a.partials, static_cast<T*>(a.log_prob));
}

template <typename T>
void backward(const NormalLogProbBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    switch (a.parametrization) {
      case Parametrization::softplus:
        return backward_chunk<T, Parametrization::softplus>(a, chunk);
      case Parametrization::scale:
        return backward_chunk<T, Parametrization::scale>(a, chunk);
      case Parametrization::log_scale:
        return backward_chunk<T, Parametrization::log_scale>(a, chunk);
      case Parametrization::log_var:
        return backward_chunk<T, Parametrization::log_var>(a, chunk);
    }
  });
}

}  // namespace

namespace BSL_ISA {
extern const NormalLogProbKernels normal_log_prob_kernels = {forward<float>, forward<double>,
                                                             backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
