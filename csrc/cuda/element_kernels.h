// The CUDA kernels of ops that take a number and rows of parameters for each element
// (core/rows.h). An op is a class Map<T>, made of the call and its block's rows by every thread of
// the block, with
//
//   static constexpr int operands;    // how many rows
//   static constexpr int scratch;     // rows that it wants beside the parameters
//   static constexpr bool has_value;  // whether it returns a number beside the logarithm
//   static constexpr int longest;     // the longest rows
//   Result<T> map();                  // the value and its logarithm
//   T gradients(T by_value, T by_log);  // that by x; the others replace the parameters
#pragma once

#include "core/math.h"
#include "core/pointwise.h"
#include "cuda/rows.h"
#include "cuda/staged_rows.h"

namespace bsl {
namespace {

using ElementCall = RowCall<DeviceShape>;

// What every map has.
template <int Operands, int Scratch, int Longest, bool HasValue = true>
struct ElementMap {
  static constexpr int operands = Operands, scratch = Scratch, longest = Longest;
  static constexpr bool has_value = HasValue;
};

template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kMostRowThreads)
    element_forward_kernel(const __grid_constant__ RowForward a, int stride) {
  extern __shared__ double memory[];
  const BlockRows<T> rows(reinterpret_cast<T*>(memory), stride, a.shape.numel);
  const Result<T> result = Map<T>(a, rows).map();
  if (rows.is_last_one_again()) return;
  write_element(a.value, rows.index(), result.value);
  write_element(a.log, rows.index(), result.log);
}

template <typename T, template <typename> class Map>
__global__ void __launch_bounds__(kMostRowThreads)
    element_backward_kernel(const __grid_constant__ RowBackward a, int stride) {
  extern __shared__ double memory[];
  const BlockRows<T> rows(reinterpret_cast<T*>(memory), stride, a.shape.numel);
  const T by_value = element<T>(a.grad_value, a.shape, rows.index());
  const T by_log = element<T>(a.grad_log, a.shape, rows.index());
  const T by_x = Map<T>(a, rows).gradients(by_value, by_log);
  if (!rows.is_last_one_again()) write_element(a.grads[0], rows.index(), by_x);
  __syncthreads();
  for (int i = 0; i < Map<T>::operands; ++i)
    rows.store(i, static_cast<int>(a.widths[1 + i]), a.grads[1 + i]);
}

template <typename T, template <typename> class Map>
RowPlan<T> element_plan(const ElementCall& a) {
  int64_t longest = 0;
  for (int i = 1; i <= Map<T>::operands; ++i)
    longest = a.widths[i] > longest ? a.widths[i] : longest;
  return RowPlan<T>(a.shape.numel, Map<T>::operands + Map<T>::scratch, static_cast<int>(longest));
}

template <typename T, template <typename> class Map>
void element_forward(const RowForward& a, cudaStream_t stream) {
  const RowPlan<T> plan = element_plan<T, Map>(a);
  element_forward_kernel<T, Map>
      <<<static_cast<unsigned>(plan.blocks), plan.threads, plan.bytes, stream>>>(a, plan.stride);
}

template <typename T, template <typename> class Map>
void element_backward(const RowBackward& a, cudaStream_t stream) {
  const RowPlan<T> plan = element_plan<T, Map>(a);
  element_backward_kernel<T, Map>
      <<<static_cast<unsigned>(plan.blocks), plan.threads, plan.bytes, stream>>>(a, plan.stride);
}

template <template <typename> class Map>
constexpr RowVariant kElementVariant = {element_forward<float, Map>, element_forward<double, Map>,
                                        element_backward<float, Map>,
                                        element_backward<double, Map>};

// A variant for each.
template <template <typename> class First, template <typename> class... Others>
constexpr RowKernels element_kernels() {
  using Op = First<float>;
  return {element_signature(Op::operands, Op::has_value, Op::longest),
          1 + static_cast<int>(sizeof...(Others)),
          {kElementVariant<First>, kElementVariant<Others>...}};
}

// One for all variants, which the call tells apart.
template <template <typename> class Map, int N>
constexpr RowKernels element_kernels_of_variants() {
  RowKernels kernels = element_kernels<Map>();
  kernels.n_variants = N;
  for (int i = 1; i < N; ++i) kernels.variants[i] = kernels.variants[0];
  return kernels;
}

}  // namespace
}  // namespace bsl
