#include "core/distributions/categorical.h"

#include "cuda/softmax.h"
#include "cuda/team.h"

namespace bsl {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads)
    categorical_forward_kernel(const __grid_constant__ CategoricalForward a, int size) {
  const T* logits = static_cast<const T*>(a.logits);
  const Team team(size);
  for_each_row(a.rows, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.classes);
    const T max = span.max(logits);
    const T sum = span.weights(logits, max);
    if (team.rank != 0) return;
    const int64_t k = a.index[row];
    const bool valid = k >= 0 && k < a.classes;
    const T logit = valid ? logits[span.begin + k] : math::Real<T>::nan;
    static_cast<T*>(a.log_prob)[row] = categorical::log_prob(logit, categorical::Row<T>{max, sum});
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    categorical_backward_kernel(const __grid_constant__ CategoricalBackward a, int size) {
  const T* logits = static_cast<const T*>(a.logits);
  const Team team(size);
  for_each_row(a.shape.numel, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.classes);
    const T max = span.max(logits);
    const T sum = span.weights(logits, max);
    const int64_t k = a.index[row];
    const bool valid = k >= 0 && k < a.classes;
    const T grad = valid ? element<T>(a.grad, a.shape, row) : math::Real<T>::nan;
    const T factor = -(grad / sum);
    span.map(logits, static_cast<T*>(a.grad_logits), [&](T logit, int64_t c) {
      const T others = weight(logit, max) * factor;
      return c == k ? others + grad : others;
    });
  });
}

template <typename T>
void forward(const CategoricalForward& a, cudaStream_t stream) {
  const int team = team_size(a.classes);
  categorical_forward_kernel<T><<<team_blocks(a.rows, team), kThreads, 0, stream>>>(a, team);
}

template <typename T>
void backward(const CategoricalBackward& a, cudaStream_t stream) {
  const int team = team_size(a.classes);
  categorical_backward_kernel<T>
      <<<team_blocks(a.shape.numel, team), kThreads, 0, stream>>>(a, team);
}

}  // namespace

namespace BSL_ISA {
extern const KernelsOf<CategoricalForward, CategoricalBackward> categorical_kernels = {
    forward<float>, forward<double>, backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
