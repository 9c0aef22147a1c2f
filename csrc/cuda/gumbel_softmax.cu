#include "core/distributions/gumbel_softmax.h"

#include "cuda/softmax.h"
#include "cuda/team.h"

namespace bsl {
namespace {

// Noise is made once: the scores of a row are kept where its result will be, each by the thread
// that reads it again. Writes them; the largest one.
template <typename T>
__device__ T write_scores(const GumbelSoftmaxCall& a, const TeamRow<T>& span, int64_t row, T* out) {
  const T temperature = static_cast<T>(a.temperature);
  const uint64_t seed = static_cast<uint64_t>(*a.seed);
  const T* logits = static_cast<const T*>(a.logits) + row % a.logit_rows * a.classes - span.begin;
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
    gumbel_softmax_forward_kernel(const __grid_constant__ GumbelSoftmaxForward a, int size) {
  T* out = static_cast<T*>(a.sample);
  const Team team(size);
  for_each_row(a.rows, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.classes);
    const T most = write_scores(a, span, row, out);
    const T sum = span.weights(out, most);
    if (!a.hard) {
      span.map(out, out, [&](T score, int64_t) { return weight(score, most) / sum; });
      return;
    }
    // The first of the largest.
    int64_t winner = a.classes - 1;
    span.visit(out,
               [&](T score, int64_t c) { winner = score == most ? least(c, winner) : winner; });
    winner = team.combined(winner, [](int64_t x, int64_t y) { return least(x, y); });
    span.map(out, out,
             [&](T, int64_t c) { return (c == winner ? T(1) : T(0)) + nan_or_zero(sum); });
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gumbel_softmax_backward_kernel(const __grid_constant__ GumbelSoftmaxBackward a, int size) {
  const T* grad = static_cast<const T*>(a.grad);
  T* out = static_cast<T*>(a.grad_logits);
  const T temperature = static_cast<T>(a.temperature);
  const Team team(size);
  for_each_row(a.rows, team, [&](int64_t row) {
    const TeamRow<T> span(team, row, a.classes);
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
void forward(const GumbelSoftmaxForward& a, cudaStream_t stream) {
  const int team = team_size(a.classes);
  gumbel_softmax_forward_kernel<T><<<team_blocks(a.rows, team), kThreads, 0, stream>>>(a, team);
}

template <typename T>
void backward(const GumbelSoftmaxBackward& a, cudaStream_t stream) {
  const int team = team_size(a.classes);
  gumbel_softmax_backward_kernel<T><<<team_blocks(a.rows, team), kThreads, 0, stream>>>(a, team);
}

}  // namespace

namespace BSL_ISA {
extern const KernelsOf<GumbelSoftmaxForward, GumbelSoftmaxBackward> gumbel_softmax_kernels = {
    forward<float>, forward<double>, backward<float>, backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
