// Makes CUDA kernels from an op's scalar functions (core/pointwise.h), as cpu/pointwise_kernels.h
// makes CPU kernels.
//
// A thread takes groups of elements, see cuda/block.h.
#pragma once

#include <utility>

#include "cuda/block.h"
#include "cuda/partials.h"
#include "cuda/pointwise.h"

namespace bsl {
namespace {

constexpr int count(Noise noise) {
  return noise == Noise::none ? 0 : noise == Noise::uniform_pair ? 2 : 1;
}

template <Noise E, typename T>
__device__ __forceinline__ void draw_group(uint64_t seed, uint64_t stream, int64_t start,
                                           Group<T>* noise) {
  const uint64_t first = static_cast<uint64_t>(start);
  if constexpr (E == Noise::normal) noise[0] = draw<true, T>(seed, stream, first);
  if constexpr (E == Noise::uniform) noise[0] = draw<false, T>(seed, stream, first);
  if constexpr (E == Noise::uniform_pair) {
    // Element i has the numbers 2 i and 2 i + 1.
    constexpr int n = kGroup<T>;
    const Group<T> halves[2] = {draw<false, T>(seed, stream, 2 * first),
                                draw<false, T>(seed, stream, 2 * first + n)};
    for (int j = 0; j < n; ++j) {
      for (int k = 0; k < 2; ++k) noise[k].at[j] = halves[(2 * j + k) / n].at[(2 * j + k) % n];
    }
  }
}

template <typename T>
__device__ __forceinline__ Numbers<T> rounded_numbers(const double (&numbers)[kMaxNumbers]) {
  Numbers<T> result;
  for (int i = 0; i < kMaxNumbers; ++i) result.at[i] = static_cast<T>(numbers[i]);
  return result;
}

template <typename Op>
constexpr int kArguments = Op::inputs + count(Op::noise);

// Whether the whole group is wanted, and one access reaches it in every operand. This is nearly
// always true, so one test serves all operands.
template <typename T, typename Call>
__device__ __forceinline__ bool is_whole(const Call& a, Part part) {
  return a.whole_groups && part.from == 0 && part.to == kGroup<T>;
}

template <typename T, typename Stored>
__device__ __forceinline__ void write(const Group<T>& group, Stored* data, Part part, bool whole) {
  if (whole) {
    write_whole(group, data + part.start);
  } else {
    write(group, data, part);
  }
}

// Computes part of a group, stores its values, and returns its logarithms. I numbers the inputs. J
// numbers the arguments of Op's functions: the inputs and the noise.
template <typename Op, typename T, typename Stored, size_t... I, size_t... J>
__device__ __forceinline__ Group<T> forward_group(const PointwiseForward& a,
                                                  const Numbers<T>& numbers, uint64_t seed,
                                                  Part part, std::index_sequence<I...>,
                                                  std::index_sequence<J...>) {
  Group<T> in[kArguments<Op>];
  const bool whole = is_whole<T>(a, part);
  if (whole) {
    ((in[I] = read_whole<T, Stored>(a.inputs[I], a.shape, part.start)), ...);
  } else {
    ((in[I] = read<T, Stored>(a.inputs[I], a.shape, part)), ...);
  }
  draw_group<Op::noise>(seed, a.stream, part.start, in + Op::inputs);
  Group<T> value, log;
  // Always unrolled: with an index unknown at compile time, groups would lie in local memory.
#pragma unroll
  for (int j = 0; j < kGroup<T>; ++j) {
    const Result<T> r = Op::forward(numbers, in[J].at[j]...);
    value.at[j] = r.value;
    log.at[j] = r.log;
  }
  if constexpr ((Op::results & kValue) != 0) {
    write(value, static_cast<Stored*>(a.value), part, whole);
  }
  return log;
}

template <typename Op, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads)
    pointwise_forward_kernel(const __grid_constant__ PointwiseForward a) {
  constexpr int n = kGroup<T>;
  const Numbers<T> numbers = rounded_numbers<T>(a.numbers);
  const uint64_t seed = Op::noise == Noise::none ? 0 : static_cast<uint64_t>(*a.seed);
  const UnitPlan& plan = a.plan;
  const Share share(plan.lanes);
  const int lane = share.lane();
  const bool sums = (Op::results & kLog) != 0 && a.reduction != Reduction::none;
  for (int64_t unit = share.first(); unit < plan.units; unit += share.step()) {
    // A division of 64 bits takes as long as an element, so it is avoided for a single piece.
    const int64_t segment = plan.pieces > 1 ? unit / plan.pieces : unit;
    const int64_t segment_start = segment * plan.segment;
    const int64_t begin = segment_start + (unit - segment * plan.pieces) * plan.piece;
    const int64_t end = least(begin + plan.piece, least(segment_start + plan.segment, plan.numel));
    double total = 0;
    for_each_part<T>(begin, end, lane, plan.lanes, [&](Part part) {
      const Group<T> log = forward_group<Op, T, Stored>(a, numbers, seed, part,
                                                        std::make_index_sequence<Op::inputs>(),
                                                        std::make_index_sequence<kArguments<Op>>());
      if constexpr ((Op::results & kLog) != 0) {
        if (sums) {
          T sum = 0;
          for (int j = 0; j < n; ++j) sum += j >= part.from && j < part.to ? log.at[j] : T(0);
          total += static_cast<double>(sum);
        } else {
          write(log, static_cast<T*>(a.log), part, is_whole<T>(a, part));
        }
      }
    });
    if (!sums) continue;
    total = combined_lanes(total, plan.lanes, [](double x, double y) { return x + y; });
    if (lane != 0) continue;
    if (plan.pieces > 1) {
      a.partials[unit] = total;
    } else {
      static_cast<T*>(a.log)[unit] = static_cast<T>(total);
    }
  }
}

template <typename T, typename Stored>
__device__ __forceinline__ void write_grad(const Group<T>& group, const Grad& grad, Part part,
                                           bool whole) {
  if (grad.data == nullptr) return;
  if (sizeof(T) == sizeof(Stored) || grad.storage == Storage::native) {
    write(group, static_cast<T*>(grad.data), part, whole);
  } else {
    write(group, static_cast<Stored*>(grad.data), part, whole);
  }
}

template <typename Op, typename T, typename Stored, size_t... I, size_t... J>
__device__ __forceinline__ void backward_group(const PointwiseBackward& a,
                                               const Numbers<T>& numbers, uint64_t seed, Part part,
                                               std::index_sequence<I...>,
                                               std::index_sequence<J...>) {
  Group<T> in[kArguments<Op>], by_value = {}, by_log = {};
  constexpr bool has_value = (Op::results & kValue) != 0, has_log = (Op::results & kLog) != 0;
  const bool whole = is_whole<T>(a, part);
  if (whole) {
    ((in[I] = read_whole<T, Stored>(a.inputs[I], a.shape, part.start)), ...);
    if (has_value) by_value = read_whole<T, Stored>(a.grad_value, a.shape, part.start);
    if (has_log) by_log = read_whole<T, T>(a.grad_log, a.shape, part.start);
  } else {
    ((in[I] = read<T, Stored>(a.inputs[I], a.shape, part)), ...);
    if (has_value) by_value = read<T, Stored>(a.grad_value, a.shape, part);
    if (has_log) by_log = read<T, T>(a.grad_log, a.shape, part);
  }
  draw_group<Op::noise>(seed, a.stream, part.start, in + Op::inputs);
  Group<T> out[Op::inputs];
#pragma unroll
  for (int j = 0; j < kGroup<T>; ++j) {
    const Gradients<T, Op::inputs> g =
        Op::backward(numbers, Result<T>{by_value.at[j], by_log.at[j]}, in[J].at[j]...);
    ((out[I].at[j] = g.of[I]), ...);
  }
  (write_grad<T, Stored>(out[I], a.grads[I], part, whole), ...);
}

template <typename Op, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads)
    pointwise_backward_kernel(const __grid_constant__ PointwiseBackward a) {
  constexpr int n = kGroup<T>;
  const Numbers<T> numbers = rounded_numbers<T>(a.numbers);
  const uint64_t seed = Op::noise == Noise::none ? 0 : static_cast<uint64_t>(*a.seed);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
#pragma unroll 1
  for (int64_t group = thread; group * n < a.shape.numel; group += step) {
    const int64_t start = group * n;
    backward_group<Op, T, Stored>(
        a, numbers, seed, {start, 0, static_cast<int>(least(a.shape.numel - start, n))},
        std::make_index_sequence<Op::inputs>(), std::make_index_sequence<kArguments<Op>>());
  }
}

template <typename Op, typename T, typename Stored>
void launch_forward(const PointwiseForward& a, cudaStream_t stream) {
  pointwise_forward_kernel<Op, T, Stored>
      <<<blocks(a.plan.units * a.plan.lanes), kThreads, 0, stream>>>(a);
  if ((Op::results & kLog) != 0 && a.plan.pieces > 1) {
    combine_partials<T>({a.partials, a.plan.pieces, a.plan.units / a.plan.pieces, a.log}, stream);
  }
}

template <typename Op, typename T, typename Stored>
void launch_backward(const PointwiseBackward& a, cudaStream_t stream) {
  pointwise_backward_kernel<Op, T, Stored>
      <<<blocks((a.shape.numel + kGroup<T> - 1) / kGroup<T>), kThreads, 0, stream>>>(a);
}

template <typename Op>
constexpr PointwiseVariant kPointwiseVariant = {
    Op::passes_on,
    {launch_forward<Op, float, float>, launch_forward<Op, double, double>,
     launch_forward<Op, float, BFloat16>, launch_forward<Op, float, Half>},
    {launch_backward<Op, float, float>, launch_backward<Op, double, double>,
     launch_backward<Op, float, BFloat16>, launch_backward<Op, float, Half>}};

template <typename First, typename... Others>
constexpr PointwiseKernels pointwise_kernels() {
  static_assert(sizeof...(Others) < kMaxVariants, "more than PointwiseKernels has room for");
  return {First::inputs,
          First::results,
          First::noise,
          false,
          1 + static_cast<int>(sizeof...(Others)),
          {kPointwiseVariant<First>, kPointwiseVariant<Others>...}};
}

}  // namespace
}  // namespace bsl
