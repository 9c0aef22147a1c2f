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

  // Sets blocks[0] to the first, and blocks[1] to the second numbers of the block at `start`.
  void load(int64_t start, const T** blocks) {
    const uint64_t first = static_cast<uint64_t>(start);
    if constexpr (E == Noise::normal) {
      blocks[0] = normal_block<T>(seed_, stream_, first, buffer_);
    }
    if constexpr (E == Noise::uniform) {
      blocks[0] = uniform_block<T>(seed_, stream_, first, buffer_);
    }
    if constexpr (E == Noise::uniform_pair) {
      // The numbers of element i are 2 i and 2 i + 1.
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

template <typename T>
__attribute__((noinline)) void add_block(T* sum, const T* term) {
  for (int i = 0; i < kBlock; ++i) sum[i] += term[i];
}

template <typename Op>
constexpr int kArguments = Op::inputs + count(Op::noise);

// The op that draws further samples of an element, or void.
template <typename Op>
using FurtherOf =
    std::conditional_t<Op::noise != Noise::none && Op::results == kValue, Op, typename Op::Further>;

// The arguments of Op's functions: inputs, noise, and the prepared number.
template <typename Op>
using ForwardArguments = std::make_index_sequence<kArguments<Op> + Op::prepares_forward>;
template <typename Op>
using BackwardArguments = std::make_index_sequence<kArguments<Op> + Op::prepares_backward>;

// The state that the blocks of a chunk share.
template <typename Op, typename T>
struct ForwardChunk {
  const PointwiseForward& a;
  const Numbers<T> numbers;
  NoiseReader<Op::noise, T> noise;
  Writer<T> value;
  alignas(64) T log[kBlock], prepared[kBlock];

  explicit ForwardChunk(const PointwiseForward& call)
      : a(call),
        numbers(rounded_numbers<T>(call.numbers)),
        noise(call.seed, call.stream),
        value(call.value, call.storage) {}

  // Draws the samples [from, to) of a block, by an op of the first inputs.
  template <typename Some, size_t... I, size_t... J>
  void run(const T* const* inputs, int64_t from, int64_t to, int64_t start, int length,
           std::index_sequence<I...>, std::index_sequence<J...>) {
    const T* in[kArguments<Some> + 1] = {inputs[I]...};
    if constexpr (Some::prepares_forward) {
      prepare_block<Some, false>(prepared, in[I]...);
      in[kArguments<Some>] = prepared;
    }
    for (int64_t sample = from; sample < to; ++sample) {
      const int64_t first = sample * a.shape.numel + start;
      noise.load(first, in + Some::inputs);
      T* out = nullptr;
      if constexpr ((Some::results & kValue) != 0) out = value.block(first, length);
      forward_block<Some, T>(numbers, out, log, in[J]...);
      if constexpr ((Some::results & kValue) != 0) value.commit(first, length);
    }
  }

  template <typename Some>
  void samples(const T* const* inputs, int64_t from, int64_t to, int64_t start, int length) {
    run<Some>(inputs, from, to, start, length, std::make_index_sequence<Some::inputs>(),
              ForwardArguments<Some>());
  }
};

template <typename Op, typename T, size_t... I>
void pointwise_forward_chunk(const PointwiseForward& a, int64_t index, std::index_sequence<I...>) {
  Reader<T> readers[] = {Reader<T>(a.inputs[I], a.shape)...};
  ForwardChunk<Op, T> chunk(a);
  Reducer<T> log(a.plan, a.reduction, index, a.log, a.partials);
  using Further = FurtherOf<Op>;
  int invalid = 0;
  for_each_block(a.plan.begin(index), a.plan.end(index), [&](int64_t start, int length) {
    const T* in[] = {readers[I].block(start, length)...};
    if constexpr (Op::checks) {
      int found = 0;
      for (int i = 0; i < kBlock; ++i) found |= Op::invalid(in[I][i]...);
      invalid |= found;
    }
    if constexpr (std::is_same_v<Further, Op>) {
      chunk.template samples<Op>(in, 0, a.n_samples, start, length);
    } else {
      chunk.template samples<Op>(in, 0, 1, start, length);
      if constexpr (!std::is_void_v<Further>) {
        if (a.n_samples > 1) chunk.template samples<Further>(in, 1, a.n_samples, start, length);
      }
    }
    if constexpr ((Op::results & kLog) != 0) log.add(chunk.log, start, length);
  });
  if (invalid != 0) __atomic_fetch_or(a.invalid, invalid, __ATOMIC_RELAXED);
}

template <typename Op, typename T>
struct BackwardChunk {
  const PointwiseBackward& a;
  const Numbers<T> numbers;
  NoiseReader<Op::noise, T> noise;
  Reader<T> value, log;
  alignas(64) T prepared[kBlock], terms[Op::inputs][kBlock];

  explicit BackwardChunk(const PointwiseBackward& call)
      : a(call),
        numbers(rounded_numbers<T>(call.numbers)),
        noise(call.seed, call.stream),
        value(call.grad_value, call.value_shape),
        log(call.grad_log, call.shape) {}

  // Computes gradients of the inputs through the samples [from, to) of a block, by an op of the
  // first inputs. Those of sample 0 are written to `out`. Those of the others are added to it.
  template <typename Some, size_t... I, size_t... J>
  void run(const T* const* inputs, T* const* out, int64_t from, int64_t to, int64_t start,
           int length, std::index_sequence<I...> each, std::index_sequence<J...>) {
    const T* in[kArguments<Some> + 1] = {inputs[I]...};
    if constexpr (Some::prepares_backward) {
      prepare_block<Some, true>(prepared, in[I]...);
      in[kArguments<Some>] = prepared;
    }
    const T* by_log = nullptr;
    if constexpr ((Some::results & kLog) != 0) by_log = log.block(start, length);
    T* const later[] = {terms[I]...};
    for (int64_t sample = from; sample < to; ++sample) {
      const int64_t first = sample * a.shape.numel + start;
      noise.load(first, in + Some::inputs);
      const T* by_value = nullptr;
      if constexpr ((Some::results & kValue) != 0) by_value = value.block(first, length);
      backward_block<Some, T>(numbers, by_value, by_log, sample == 0 ? out : later, each, in[J]...);
      if (sample > 0) (add_block(out[I], later[I]), ...);
    }
  }

  template <typename Some>
  void samples(const T* const* inputs, T* const* out, int64_t from, int64_t to, int64_t start,
               int length) {
    run<Some>(inputs, out, from, to, start, length, std::make_index_sequence<Some::inputs>(),
              BackwardArguments<Some>());
  }
};

template <typename Op, typename T, size_t... I>
void pointwise_backward_chunk(const PointwiseBackward& a, int64_t index,
                              std::index_sequence<I...>) {
  Reader<T> readers[] = {Reader<T>(a.inputs[I], a.shape)...};
  Writer<T> writers[] = {Writer<T>(a.grads[I])...};
  BackwardChunk<Op, T> chunk(a);
  alignas(64) T unwanted[Op::inputs][kBlock];
  using Further = FurtherOf<Op>;
  for_each_block(a.plan.begin(index), a.plan.end(index), [&](int64_t start, int length) {
    const T* in[] = {readers[I].block(start, length)...};
    T* const out[] = {writers[I] ? writers[I].block(start, length) : unwanted[I]...};
    if constexpr (std::is_same_v<Further, Op>) {
      chunk.template samples<Op>(in, out, 0, a.n_samples, start, length);
    } else {
      chunk.template samples<Op>(in, out, 0, 1, start, length);
      if constexpr (!std::is_void_v<Further>) {
        if (a.n_samples > 1) {
          chunk.template samples<Further>(in, out, 1, a.n_samples, start, length);
        }
      }
    }
    ((writers[I] ? writers[I].commit(start, length) : void()), ...);
  });
}

template <typename Op, typename T>
void pointwise_forward(const PointwiseForward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t index) {
    pointwise_forward_chunk<Op, T>(a, index, std::make_index_sequence<Op::inputs>());
  });
  if constexpr ((Op::results & kLog) != 0) {
    combine_partials<T>(a.plan, a.partials, a.log);
  }
}

template <typename Op, typename T>
void pointwise_backward(const PointwiseBackward& a) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t index) {
    pointwise_backward_chunk<Op, T>(a, index, std::make_index_sequence<Op::inputs>());
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
          !std::is_void_v<FurtherOf<First>>,
          1 + static_cast<int>(sizeof...(Others)),
          {kPointwiseVariant<First>, kPointwiseVariant<Others>...}};
}

}  // namespace
}  // namespace bsl
