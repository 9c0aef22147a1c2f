#include "cpu/bernoulli.h"

#include "core/distributions/bernoulli.h"
#include "cpu/block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

template <typename T>
void forward_chunk(const BernoulliForward& a, int64_t chunk) {
  Reader<T> logits_reader(a.logits, a.shape), x_reader(a.x, a.shape);
  Reducer<T> reducer(a.plan, a.reduction, chunk, static_cast<T*>(a.log_prob), a.partials);
  alignas(64) T log_prob[kBlock];
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* logits = logits_reader.block(start, length);
    const T* x = x_reader.block(start, length);
    for (int i = 0; i < kBlock; ++i) log_prob[i] = bernoulli::log_prob(logits[i], x[i]);
    reducer.add(log_prob, start, length);
  });
}

template <typename T>
void backward_chunk(const BernoulliBackward& a, int64_t chunk) {
  Reader<T> logits_reader(a.logits, a.shape), x_reader(a.x, a.shape), grad_reader(a.grad, a.shape);
  Writer<T> grad_logits(static_cast<T*>(a.grad_logits)), grad_x(static_cast<T*>(a.grad_x));
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* logits = logits_reader.block(start, length);
    const T* grad = grad_reader.block(start, length);
    if (grad_logits) {
      const T* x = x_reader.block(start, length);
      T* out = grad_logits.block(start, length);
      for (int i = 0; i < kBlock; ++i) {
        out[i] = grad[i] * bernoulli::grad_logit(logits[i], x[i]);
      }
      grad_logits.commit(start, length);
    }
    if (grad_x) {
      T* out = grad_x.block(start, length);
      for (int i = 0; i < kBlock; ++i) out[i] = grad[i] * logits[i];
      grad_x.commit(start, length);
    }
  });
}

template <typename T>
void forward(const BernoulliForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { forward_chunk<T>(a, chunk); });
  combine_partials(a.plan, a.partials, static_cast<T*>(a.log_prob));
}

template <typename T>
void backward(const BernoulliBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) { backward_chunk<T>(a, chunk); });
}

}  // namespace

namespace BSL_ISA {
extern const BernoulliKernels bernoulli_kernels = {forward<float>, forward<double>, backward<float>,
                                                   backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
