// Runs any pointwise op, by the loops of cpu/pointwise_loops.h.
#include <algorithm>

#include "cpu/block.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"
#include "cpu/pointwise_loops.h"

namespace bsl {
namespace {

constexpr int kMaxArguments = kMaxInputs + 3;  // two random numbers, and the prepared one

// The random numbers of a block's elements.
template <typename T>
class NoiseReader {
 public:
  NoiseReader(Noise kind, uint64_t seed, uint64_t stream)
      : kind_(kind), seed_(seed), stream_(stream) {}

  // Sets blocks[0] to the first, and blocks[1] to the second numbers of the block at `start`.
  void load(int64_t start, const T** blocks) {
    const uint64_t first = static_cast<uint64_t>(start);
    switch (kind_) {
      case Noise::none:
        return;
      case Noise::normal:
        blocks[0] = normal_block<T>(seed_, stream_, first, buffer_);
        return;
      case Noise::uniform:
        blocks[0] = uniform_block<T>(seed_, stream_, first, buffer_);
        return;
      case Noise::uniform_pair:
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
  const Noise kind_;
  const uint64_t seed_, stream_;
  alignas(64) T buffer_[kNoiseBuffer];
  alignas(64) T pair_[2][kBlock];
};

template <typename T>
Numbers<T> rounded_numbers(const double (&numbers)[kMaxNumbers]) {
  Numbers<T> result;
  for (int i = 0; i < kMaxNumbers; ++i) result.at[i] = static_cast<T>(numbers[i]);
  return result;
}

// Readers of all inputs. Those that an op does not have are absent.
template <typename T>
struct InputReaders {
  template <typename Call>
  explicit InputReaders(const Call& a)
      : of{{a.inputs[0], a.shape}, {a.inputs[1], a.shape}, {a.inputs[2], a.shape},
           {a.inputs[3], a.shape}, {a.inputs[4], a.shape}, {a.inputs[5], a.shape}} {
    static_assert(kMaxInputs == 6, "a reader for each");
  }

  void load(int n, int64_t start, int length, const T** in) {
    for (int k = 0; k < n; ++k) in[k] = of[k].block(start, length);
  }

  Reader<T> of[kMaxInputs];
};

template <typename T>
bool has(const PointwiseLoops<T>& op, Results result) {
  return (op.results & result) != 0;
}

// Calls f(op, from, to) for the samples [from, to) that an op draws of each element.
template <typename T, typename F>
void for_each_op(const PointwiseLoops<T>& op, int64_t n_samples, const F& f) {
  const bool alike = op.further == &op;
  f(op, int64_t{0}, alike ? n_samples : 1);
  if (op.further != nullptr && !alike && n_samples > 1) f(*op.further, int64_t{1}, n_samples);
}

template <typename T>
void forward_chunk(const PointwiseForward& a, const PointwiseLoops<T>& op, int64_t index) {
  const Numbers<T> numbers = rounded_numbers<T>(a.numbers);
  InputReaders<T> readers(a);
  NoiseReader<T> noise(op.noise, a.seed, a.stream);
  Writer<T> value(a.value, a.storage);
  Reducer<T> log(a.plan, a.reduction, index, a.log, a.partials);
  alignas(64) T logs[kBlock], prepared[kBlock];
  int invalid = 0;
  for_each_block(a.plan.begin(index), a.plan.end(index), [&](int64_t start, int length) {
    const T* inputs[kMaxInputs];
    readers.load(op.inputs, start, length, inputs);
    if (op.invalid != nullptr) invalid |= op.invalid(inputs);
    for_each_op(op, a.n_samples, [&](const PointwiseLoops<T>& some, int64_t from, int64_t to) {
      const T* in[kMaxArguments];
      const T** const drawn = std::copy_n(inputs, some.inputs, in);
      if (some.prepare_forward != nullptr) {
        some.prepare_forward(prepared, in);
        drawn[noise_count(op.noise)] = prepared;
      }
      for (int64_t sample = from; sample < to; ++sample) {
        const int64_t first = sample * a.shape.numel + start;
        noise.load(first, drawn);
        if (has(some, kValue)) {
          some.forward(numbers, value.block(first, length), logs, in);
          value.commit(first, length);
        } else {
          some.forward(numbers, nullptr, logs, in);
        }
      }
    });
    if (has(op, kLog)) log.add(logs, start, length);
  });
  if (invalid != 0) __atomic_fetch_or(a.invalid, invalid, __ATOMIC_RELAXED);
}

template <typename T>
void add_block(T* sum, const T* term) {
  for (int i = 0; i < kBlock; ++i) sum[i] += term[i];
}

template <typename T>
void backward_chunk(const PointwiseBackward& a, const PointwiseLoops<T>& op, int64_t index) {
  const Numbers<T> numbers = rounded_numbers<T>(a.numbers);
  InputReaders<T> readers(a);
  NoiseReader<T> noise(op.noise, a.seed, a.stream);
  Reader<T> value(a.grad_value, a.value_shape), log(a.grad_log, a.shape);
  Writer<T> writers[] = {Writer<T>(a.grads[0]), Writer<T>(a.grads[1]), Writer<T>(a.grads[2]),
                         Writer<T>(a.grads[3]), Writer<T>(a.grads[4]), Writer<T>(a.grads[5])};
  alignas(64) T prepared[kBlock], unwanted[kMaxInputs][kBlock], terms[kMaxInputs][kBlock];
  for_each_block(a.plan.begin(index), a.plan.end(index), [&](int64_t start, int length) {
    const T* inputs[kMaxInputs];
    readers.load(op.inputs, start, length, inputs);
    T* out[kMaxInputs];
    T* later[kMaxInputs];
    for (int k = 0; k < op.inputs; ++k) {
      out[k] = writers[k] ? writers[k].block(start, length) : unwanted[k];
      later[k] = terms[k];
    }
    // Gradients through the first sample are written. Those through the others are added.
    for_each_op(op, a.n_samples, [&](const PointwiseLoops<T>& some, int64_t from, int64_t to) {
      const T* in[kMaxArguments];
      const T** const drawn = std::copy_n(inputs, some.inputs, in);
      if (some.prepare_backward != nullptr) {
        some.prepare_backward(prepared, in);
        drawn[noise_count(op.noise)] = prepared;
      }
      const T* by_log = has(some, kLog) ? log.block(start, length) : nullptr;
      for (int64_t sample = from; sample < to; ++sample) {
        const int64_t first = sample * a.shape.numel + start;
        noise.load(first, drawn);
        const T* by_value = has(some, kValue) ? value.block(first, length) : nullptr;
        some.backward(numbers, by_value, by_log, sample == 0 ? out : later, in);
        for (int k = 0; sample > 0 && k < some.inputs; ++k) add_block(out[k], later[k]);
      }
    });
    for (int k = 0; k < op.inputs; ++k) {
      if (writers[k]) writers[k].commit(start, length);
    }
  });
}

template <typename T>
void forward(const PointwiseForward& a, const PointwiseLoops<T>& op) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t index) { forward_chunk(a, op, index); });
  if (has(op, kLog)) combine_partials<T>(a.plan, a.partials, a.log);
}

template <typename T>
void backward(const PointwiseBackward& a, const PointwiseLoops<T>& op) {
  parallel_chunks(a.plan.n_chunks, [&](int64_t index) { backward_chunk(a, op, index); });
}

}  // namespace

namespace BSL_ISA {
void run_forward(const PointwiseForward& a, const PointwiseLoops<float>& op) { forward(a, op); }
void run_forward(const PointwiseForward& a, const PointwiseLoops<double>& op) { forward(a, op); }
void run_backward(const PointwiseBackward& a, const PointwiseLoops<float>& op) { backward(a, op); }
void run_backward(const PointwiseBackward& a, const PointwiseLoops<double>& op) { backward(a, op); }
}  // namespace BSL_ISA

}  // namespace bsl
