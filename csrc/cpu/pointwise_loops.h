// What cpu/pointwise.cpp needs of an op to run it. All ops share one copy of its code, which reads
// operands, draws noise, writes results and sums logarithms. An op has only loops over blocks.
#pragma once

#include "core/pointwise.h"
#include "cpu/layout.h"
#include "cpu/pointwise.h"

namespace bsl {

constexpr int noise_count(Noise noise) {
  return noise == Noise::none ? 0 : noise == Noise::uniform_pair ? 2 : 1;
}

// The loops of an op, over blocks of kBlock elements. Blocks of arguments come in the order of the
// op's functions: inputs, noise, and the prepared number.
template <typename T>
struct PointwiseLoops {
  int inputs;
  Results results;
  Noise noise;
  // Null if the op prepares nothing.
  void (*prepare_forward)(T* prepared, const T* const* in);
  void (*prepare_backward)(T* prepared, const T* const* in);
  void (*forward)(const Numbers<T>& numbers, T* value, T* log, const T* const* in);
  void (*backward)(const Numbers<T>& numbers, const T* by_value, const T* by_log, T* const* out,
                   const T* const* in);
  int (*invalid)(const T* const* in);  // null if all numbers are inside the domain
  // Those of the op that draws all samples but the first, from the first of the inputs. The op
  // itself if all samples are alike. Null if there is one sample only.
  const PointwiseLoops* further;
};

namespace BSL_ISA {
void run_forward(const PointwiseForward& call, const PointwiseLoops<float>& op);
void run_forward(const PointwiseForward& call, const PointwiseLoops<double>& op);
void run_backward(const PointwiseBackward& call, const PointwiseLoops<float>& op);
void run_backward(const PointwiseBackward& call, const PointwiseLoops<double>& op);
}  // namespace BSL_ISA

}  // namespace bsl
