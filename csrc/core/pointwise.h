// Pointwise ops. The arguments are one element of each of a few tensors, and perhaps a random
// number. The results are a value, a logarithm, or both. Logarithms (log densities, divergences,
// log-determinants) are summed over rows.
//
// An op is a type, such as the one below. Its variants differ in template parameters.
//
//   struct LogProb : Pointwise<2, kLog> {
//     template <typename T>
//     BSL_HD static Result<T> forward(const Numbers<T>&, T logit, T x);
//     template <typename T>
//     BSL_HD static Gradients<T, 2> backward(const Numbers<T>&, Result<T> grad, T logit, T x);
//   };
//
// forward and backward take the elements in the order of the op's tensors, then its random numbers.
// Numbers are the call's constants. The kernels around it are made by cpu/pointwise_kernels.h.
#pragma once

#include "core/platform.h"

namespace bsl {

constexpr int kMaxInputs = 6;
constexpr int kMaxNumbers = 5;

// What an op returns.
enum Results { kValue = 1, kLog = 2, kValueAndLog = 3 };

// Random numbers of an op per element: standard normal, uniform in (0, 1), two uniforms.
enum class Noise { none, normal, uniform, uniform_pair };

template <typename T>
struct Numbers {
  T at[kMaxNumbers];
};

namespace {

template <typename T>
struct Result {
  T value, log;
};

template <typename T, int N>
struct Gradients {
  T of[N];
};

template <int N, Results R, Noise E = Noise::none>
struct Pointwise {
  static constexpr int inputs = N;
  static constexpr Results results = R;
  static constexpr Noise noise = E;
  // The input whose gradient equals the value's; -1 if there is none. No kernel writes the gradient
  // of this input, unless the input is broadcast.
  static constexpr int passes_on = -1;
  // A bit for each input that is outside its domain. NaN counts as inside. An op that hides this
  // function must also hide the constant.
  static constexpr bool checks = false;
  template <typename... T>
  BSL_HD static int invalid(T...) {
    return 0;
  }
  // Whether the CPU computes a number of an element's inputs in a loop of its own. The number then
  // serves all samples of the element, and each loop has a shorter chain of operations. Such an op
  // has prepare(inputs...) and forward_from(numbers, inputs..., noise..., prepared), or
  // prepare_backward and backward_from. forward and backward are made of the two.
  static constexpr bool prepares_forward = false;
  static constexpr bool prepares_backward = false;
  // The op that draws all samples but the first, from the first of the inputs. Ops have one if
  // their logarithm belongs to an element and not to its samples.
  using Further = void;
};

}  // namespace
}  // namespace bsl
