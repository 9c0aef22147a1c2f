// The kernels of an op, made from its scalar functions (core/pointwise.h):
//
//   namespace BSL_ISA {
//   extern const PointwiseKernels foo_log_prob_kernels = pointwise_kernels<foo::LogProb>();
//   }
//
// or pointwise_kernels<Variant0, Variant1, ...>(), in the order of the variants in Python.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/pointwise_loops.h"

namespace bsl {
namespace {

// Compilers vectorise these loops because they are functions of pointers alone. They are not
// inlined: a caller's knowledge of an argument's first element would make the first turn of a loop
// unlike the others. A result overlaps no argument, unless both begin at the same address.
template <typename Op, bool backward, typename T, typename... In>
__attribute__((noinline)) void prepare_block(T* prepared, const In*... in) {
#pragma GCC ivdep
  for (int i = 0; i < kBlock; ++i) {
    if constexpr (backward) {
      prepared[i] = Op::prepare_backward(in[i]...);
    } else {
      prepared[i] = Op::prepare(in[i]...);
    }
  }
}

template <typename Op, typename T, typename... In>
__attribute__((noinline)) void forward_block(const Numbers<T> numbers, T* value, T* log,
                                             const In*... in) {
#pragma GCC ivdep
  for (int i = 0; i < kBlock; ++i) {
    Result<T> r;
    if constexpr (Op::prepares_forward) {
      r = Op::forward_from(numbers, in[i]...);
    } else {
      r = Op::forward(numbers, in[i]...);
    }
    if constexpr ((Op::results & kValue) != 0) value[i] = r.value;
    if constexpr ((Op::results & kLog) != 0) log[i] = r.log;
  }
}

template <typename Op, typename T, size_t... I, typename... In>
__attribute__((noinline)) void backward_block(const Numbers<T> numbers, const T* by_value,
                                              const T* by_log, T* const* out,
                                              std::index_sequence<I...>, const In*... in) {
  T* const grads[] = {out[I]...};
#pragma GCC ivdep
  for (int i = 0; i < kBlock; ++i) {
    const Result<T> grad = {(Op::results & kValue) != 0 ? by_value[i] : T(0),
                            (Op::results & kLog) != 0 ? by_log[i] : T(0)};
    Gradients<T, Op::inputs> g;
    if constexpr (Op::prepares_backward) {
      g = Op::backward_from(numbers, grad, in[i]...);
    } else {
      g = Op::backward(numbers, grad, in[i]...);
    }
    ((grads[I][i] = g.of[I]), ...);
  }
}

template <typename Op, typename T, typename... In>
__attribute__((noinline)) int invalid_in_block(const In*... in) {
  int found = 0;
  for (int i = 0; i < kBlock; ++i) found |= Op::invalid(in[i]...);
  return found;
}

// The loops of an op, as functions of arrays of arguments. I: places of its inputs, F and B: those
// of the arguments of forward and backward.
template <typename Op, typename T, typename I, typename F, typename B>
struct LoopsOf;

template <typename Op, typename T, size_t... I, size_t... F, size_t... B>
struct LoopsOf<Op, T, std::index_sequence<I...>, std::index_sequence<F...>,
               std::index_sequence<B...>> {
  template <bool backward>
  static void prepare(T* prepared, const T* const* in) {
    prepare_block<Op, backward>(prepared, in[I]...);
  }
  static void forward(const Numbers<T>& numbers, T* value, T* log, const T* const* in) {
    forward_block<Op, T>(numbers, value, log, in[F]...);
  }
  static void backward(const Numbers<T>& numbers, const T* by_value, const T* by_log, T* const* out,
                       const T* const* in) {
    backward_block<Op, T>(numbers, by_value, by_log, out, std::index_sequence<I...>(), in[B]...);
  }
  static int invalid(const T* const* in) { return invalid_in_block<Op, T>(in[I]...); }
};

// The op that draws further samples of an element, or void.
template <typename Op>
using FurtherOf =
    std::conditional_t<Op::noise != Noise::none && Op::results == kValue, Op, typename Op::Further>;

template <typename Op, typename T>
constexpr PointwiseLoops<T> pointwise_loops();

template <typename Op, typename T>
constexpr PointwiseLoops<T> kPointwiseLoops = pointwise_loops<Op, T>();

template <typename Op, typename T>
constexpr PointwiseLoops<T> pointwise_loops() {
  constexpr int arguments = Op::inputs + noise_count(Op::noise);
  using Loops = LoopsOf<Op, T, std::make_index_sequence<Op::inputs>,
                        std::make_index_sequence<arguments + Op::prepares_forward>,
                        std::make_index_sequence<arguments + Op::prepares_backward>>;
  PointwiseLoops<T> loops = {};
  loops.inputs = Op::inputs;
  loops.results = Op::results;
  loops.noise = Op::noise;
  loops.forward = Loops::forward;
  loops.backward = Loops::backward;
  if constexpr (Op::prepares_forward) loops.prepare_forward = Loops::template prepare<false>;
  if constexpr (Op::prepares_backward) loops.prepare_backward = Loops::template prepare<true>;
  if constexpr (Op::checks) loops.invalid = Loops::invalid;
  if constexpr (!std::is_void_v<FurtherOf<Op>>) loops.further = &kPointwiseLoops<FurtherOf<Op>, T>;
  return loops;
}

template <typename Op, typename T>
void pointwise_forward(const PointwiseForward& a) {
  BSL_ISA::run_forward(a, kPointwiseLoops<Op, T>);
}

template <typename Op, typename T>
void pointwise_backward(const PointwiseBackward& a) {
  BSL_ISA::run_backward(a, kPointwiseLoops<Op, T>);
}

template <typename Op>
constexpr PointwiseVariant kPointwiseVariant = {
    Op::passes_on, pointwise_forward<Op, float>, pointwise_forward<Op, double>,
    pointwise_backward<Op, float>, pointwise_backward<Op, double>};

template <typename First, typename... Others>
constexpr PointwiseKernels pointwise_kernels() {
  static_assert(sizeof...(Others) < kMaxVariants, "more than PointwiseKernels has room for");
  return {First::inputs,
          First::results,
          First::noise,
          !std::is_void_v<FurtherOf<First>>,
          1 + static_cast<int>(sizeof...(Others)),
          {kPointwiseVariant<First>, kPointwiseVariant<Others>...}};
}

}  // namespace
}  // namespace bsl
