// The CUDA kernels of ops with rows of parameters for each element. An op is a class Map<T>, made
// of the call and its block's rows by every thread of the block, with
//
//   static constexpr int operands;              // how many rows
//   static constexpr int scratch;               // rows that it wants beside the parameters
//   Result<T> map();                            // y and its logarithm
//   T gradients(T by_y, T by_log);              // that by x; the others replace the parameters
//
// Those on mixtures have Mixture<T>. As in cpu/mixture_kernels.h, softmaxes are taken twice over:
// for the largest logarithm, then for the sum of weights. Exponentials are computed again where
// they are wanted again.
#pragma once

#include "core/math.h"
#include "core/pointwise.h"
#include "core/softmax.h"
#include "cuda/mixture.h"
#include "cuda/staged_rows.h"

namespace bsl {
namespace {

// Of one element.
template <typename T>
struct Mixture {
  static constexpr int operands = 3;

  int n;
  Numbers<T> numbers;
  T x;
  T *logit, *loc, *log_scale;
  T* scratch[2];

  __device__ Mixture(const MixtureCall& a, const BlockRows<T>& rows) : n(a.components) {
    rows.load({&a.rows[0], &a.rows[1], &a.rows[2]}, {n, n, n}, a.shape);
    for (int i = 0; i < kMaxNumbers; ++i) numbers.at[i] = static_cast<T>(a.numbers[i]);
    x = element<T>(a.x, a.shape, rows.index());
    logit = rows.own(0);
    loc = rows.own(1);
    log_scale = rows.own(2);
    for (int i = 0; i < 2; ++i) scratch[i] = rows.own(operands + i);
    centre();
  }

  // The least distance(k) of the components that are not left out.
  template <typename F>
  __device__ T least_distance(const F& distance) const {
    T least = math::Real<T>::infinity;
    for (int k = 0; k < n; ++k) {
      const T own = compared(logit[k], distance(k));
      least = own < least ? own : least;
    }
    return least;
  }

  // Its weight where no component has one: among the nearest.
  __device__ T log_weight(int k, T distance, T least) const {
    return distance <= least ? logit[k] : -math::Real<T>::infinity;
  }

 private:
  // Takes the largest logit off all: a common factor of the weights means nothing, and without it
  // all logarithms are small.
  __device__ void centre() {
    T max = logit[0];
    for (int k = 1; k < n; ++k) max = logit[k] > max ? logit[k] : max;
    for (int k = 0; k < n; ++k) logit[k] -= max;
  }
};

// A softmax over components: found with the largest logarithm, then the sum of exp(l - max).
template <typename T>
struct Softmax {
  T max, sum, log;

  __device__ Softmax() : max(-math::Real<T>::infinity), sum(0) {}

  // NaN is passed over: its weight is NaN.
  __device__ void look_at(T l) { max = l > max ? l : max; }
  __device__ void seen_all() { max = max < kLowest<T> ? kLowest<T> : max; }
  __device__ T weight(T l) const { return math::exp(l - max); }
  __device__ void add(T l) { sum += weight(l); }
  __device__ void added_all() { log = math::log(sum); }
  __device__ T share(T l) const { return weight(l) / sum; }
};

// That of log(k) for each of n components.
template <typename T, typename F>
__device__ Softmax<T> softmax_of(int n, const F& log) {
  Softmax<T> result;
  for (int k = 0; k < n; ++k) result.look_at(log(k));
  result.seen_all();
  for (int k = 0; k < n; ++k) result.add(log(k));
  result.added_all();
  return result;
}

template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kMostRowThreads)
    mixture_forward_kernel(const __grid_constant__ MixtureForward a, int stride) {
  extern __shared__ double memory[];
  const BlockRows<T> rows(reinterpret_cast<T*>(memory), stride, a.shape.numel);
  const Result<T> result = Map<T>(a, rows).map();
  if (rows.is_last_one_again()) return;
  write_element(a.y, rows.index(), result.value);
  write_element(a.log, rows.index(), result.log);
}

template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kMostRowThreads)
    mixture_backward_kernel(const __grid_constant__ MixtureBackward a, int stride) {
  extern __shared__ double memory[];
  const BlockRows<T> rows(reinterpret_cast<T*>(memory), stride, a.shape.numel);
  const T by_y = element<T>(a.grad_y, a.shape, rows.index());
  const T by_log = element<T>(a.grad_log, a.shape, rows.index());
  const T by_x = Map<T>(a, rows).gradients(by_y, by_log);
  if (!rows.is_last_one_again()) write_element(a.grad_x, rows.index(), by_x);
  __syncthreads();
  for (int i = 0; i < Map<T>::operands; ++i) rows.store(i, a.components, a.grad_rows[i]);
}

template <typename T, template <typename> class Map>
RowPlan<T> mixture_plan(const MixtureCall& a) {
  return RowPlan<T>(a.shape.numel, Map<T>::operands + Map<T>::scratch, a.components);
}

template <typename T, template <typename> class Map>
void mixture_forward(const MixtureForward& a, cudaStream_t stream) {
  const RowPlan<T> plan = mixture_plan<T, Map>(a);
  mixture_forward_kernel<T, Map>
      <<<static_cast<unsigned>(plan.blocks), plan.threads, plan.bytes, stream>>>(a, plan.stride);
}

template <typename T, template <typename> class Map>
void mixture_backward(const MixtureBackward& a, cudaStream_t stream) {
  const RowPlan<T> plan = mixture_plan<T, Map>(a);
  mixture_backward_kernel<T, Map>
      <<<static_cast<unsigned>(plan.blocks), plan.threads, plan.bytes, stream>>>(a, plan.stride);
}

template <template <typename> class Map>
constexpr MixtureKernels kMixtureKernels = {
    mixture_forward<float, Map>, mixture_forward<double, Map>, mixture_backward<float, Map>,
    mixture_backward<double, Map>};

}  // namespace
}  // namespace bsl
