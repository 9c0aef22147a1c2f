// From an op's scalar functions (core/pointwise.h) to its kernels:
//
//   namespace BSL_ISA {
//   extern const PointwiseKernels foo_log_prob_kernels = pointwise_kernels<foo::LogProb>();
//   }
//
// or pointwise_kernels<Variant0, Variant1, ...>(), in the order of the variants in Python.
#pragma once

#include <utility>

#include "cpu/block.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"
#include "cpu/pointwise.h"

namespace bsl {
namespace {

constexpr int count(Noise noise) {
  return noise == Noise::none ? 0 : noise == Noise::uniform_pair ? 2 : 1;
}

// The random numbers of a block's elements.
template <Noise E, typename T>
class NoiseReader {
 public:
  NoiseReader(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  // Those of the block that begins at `start`: first, and second numbers.
  void load(int64_t start, const T** blocks) {
    const uint64_t first = static_cast<uint64_t>(start);
    if constexpr (E == Noise::normal) {
      blocks[0] = normal_block<T>(seed_, stream_, first, buffer_);
    }
    if constexpr (E == Noise::uniform) {
      blocks[0] = uniform_block<T>(seed_, stream_, first, buffer_);
    }
    if constexpr (E == Noise::uniform_pair) {
      // Element i has the numbers 2 i and 2 i + 1.
      for (int half = 0; half < kBlock; half += kBlock / 2) {
        const T* pairs = uniform_block<T>(seed_, stream_, 2 * (first + half), buffer_);
        for (int i = 0; i < kBlock / 2; ++i) {
          pair_[0][half + i] = pairs[2 * i];
          pair_[1][half + i] = pairs[2 * i + 1];
        }
      }
      blocks[0] = pair_[0];
      blocks[1] = pair_[1];
    }
  }

 private:
  const uint64_t seed_, stream_;
  alignas(64) T buffer_[E == Noise::none ? 1 : kNoiseBuffer];
  alignas(64) T pair_[2][E == Noise::uniform_pair ? kBlock : 1];
};

template <typename T>
Numbers<T> rounded_numbers(const double (&numbers)[kMaxNumbers]) {
  Numbers<T> result;
  for (int i = 0; i < kMaxNumbers; ++i) result.at[i] = static_cast<T>(numbers[i]);
  return result;
}

// The loops are functions of pointers alone: that is what compilers vectorise. Not inlined, or what
// is known of an argument's first element would make the first turn of a loop unlike the others. No
// result overlaps an argument.
template <typename Op, typename T, typename... In>
__attribute__((noinline)) void forward_block(const Numbers<T> numbers, T* value, T* log,
                                             const In*... in) {
#pragma GCC ivdep
  for (int i = 0; i < kBlock; ++i) {
    const Result<T> r = Op::forward(numbers, in[i]...);
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
    const Gradients<T, Op::inputs> g = Op::backward(numbers, grad, in[i]...);
    ((grads[I][i] = g.of[I]), ...);
  }
}

template <typename Op>
constexpr int kArguments = Op::inputs + count(Op::noise);

// I: the inputs. J: the arguments of Op's functions, which are the inputs and then the noise.
template <typename Op, typename T, size_t... I, size_t... J>
void pointwise_forward_chunk(const PointwiseForward& a, int64_t chunk, std::index_sequence<I...>,
                             std::index_sequence<J...>) {
  Reader<T> readers[] = {Reader<T>(a.inputs[I], a.shape)...};
  NoiseReader<Op::noise, T> noise(a.seed, a.stream);
  Writer<T> value(a.value, a.storage);
  Reducer<T> log(a.plan, a.reduction, chunk, a.log, a.partials);
  const Numbers<T> numbers = rounded_numbers<T>(a.numbers);
  alignas(64) T log_block[kBlock];
  int invalid = 0;
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* in[kArguments<Op>] = {readers[I].block(start, length)...};
    noise.load(start, in + Op::inputs);
    if constexpr (Op::checks) {
      int found = 0;
      for (int i = 0; i < kBlock; ++i) found |= Op::invalid(in[I][i]...);
      invalid |= found;
    }
    T* out = nullptr;
    if constexpr ((Op::results & kValue) != 0) out = value.block(start, length);
    forward_block<Op, T>(numbers, out, log_block, in[J]...);
    if constexpr ((Op::results & kValue) != 0) value.commit(start, length);
    if constexpr ((Op::results & kLog) != 0) log.add(log_block, start, length);
  });
  if (invalid != 0) __atomic_fetch_or(a.invalid, invalid, __ATOMIC_RELAXED);
}

template <typename Op, typename T, size_t... I, size_t... J>
void pointwise_backward_chunk(const PointwiseBackward& a, int64_t chunk, std::index_sequence<I...>,
                              std::index_sequence<J...>) {
  Reader<T> readers[] = {Reader<T>(a.inputs[I], a.shape)...};
  Reader<T> value_reader(a.grad_value, a.shape), log_reader(a.grad_log, a.shape);
  NoiseReader<Op::noise, T> noise(a.seed, a.stream);
  Writer<T> writers[] = {Writer<T>(a.grads[I])...};
  const Numbers<T> numbers = rounded_numbers<T>(a.numbers);
  alignas(64) T unwanted[Op::inputs][kBlock];
  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* in[kArguments<Op>] = {readers[I].block(start, length)...};
    noise.load(start, in + Op::inputs);
    const T* by_value = nullptr;
    const T* by_log = nullptr;
    if constexpr ((Op::results & kValue) != 0) by_value = value_reader.block(start, length);
    if constexpr ((Op::results & kLog) != 0) by_log = log_reader.block(start, length);
    T* out[] = {writers[I] ? writers[I].block(start, length) : unwanted[I]...};
    backward_block<Op, T>(numbers, by_value, by_log, out, std::index_sequence<I...>(), in[J]...);
    ((writers[I] ? writers[I].commit(start, length) : void()), ...);
  });
}

template <typename Op, typename T>
void pointwise_forward(const PointwiseForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    pointwise_forward_chunk<Op, T>(a, chunk, std::make_index_sequence<Op::inputs>(),
                                   std::make_index_sequence<kArguments<Op>>());
  });
  if constexpr ((Op::results & kLog) != 0) {
    combine_partials<T>(a.plan, a.partials, a.log);
  }
}

template <typename Op, typename T>
void pointwise_backward(const PointwiseBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
    pointwise_backward_chunk<Op, T>(a, chunk, std::make_index_sequence<Op::inputs>(),
                                    std::make_index_sequence<kArguments<Op>>());
  });
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
          1 + static_cast<int>(sizeof...(Others)),
          {kPointwiseVariant<First>, kPointwiseVariant<Others>...}};
}

}  // namespace
}  // namespace bsl
