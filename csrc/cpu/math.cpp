#include "cpu/math.h"

#include "core/math.h"
#include "core/special.h"
#include "cpu/layout.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

template <typename T, typename F>
inline void apply_blocks(const T* x, T* y, int64_t n, const F& f) {
  for (int64_t start = 0; start < n; start += kBlock) {
    const int length = static_cast<int>(n - start < kBlock ? n - start : kBlock);
    // Only whole blocks, as in all kernels, so that tests see the vectorised code.
    alignas(64) T in[kBlock] = {}, out[kBlock];
    for (int i = 0; i < length; ++i) in[i] = x[start + i];
    for (int i = 0; i < kBlock; ++i) out[i] = f(in[i]);
    for (int i = 0; i < length; ++i) y[start + i] = out[i];
  }
}

template <typename T>
void apply_chunk(MathFunction function, const T* x, T* y, int64_t n) {
  switch (function) {
    case MathFunction::exp:
      return apply_blocks(x, y, n, [](T v) { return math::exp(v); });
    case MathFunction::expm1:
      return apply_blocks(x, y, n, [](T v) { return math::expm1(v); });
    case MathFunction::log:
      return apply_blocks(x, y, n, [](T v) { return math::log(v); });
    case MathFunction::log1p:
      return apply_blocks(x, y, n, [](T v) { return math::log1p(v); });
    case MathFunction::sigmoid:
      return apply_blocks(x, y, n, [](T v) { return math::sigmoid(v); });
    case MathFunction::softplus:
      return apply_blocks(x, y, n, [](T v) { return math::softplus(v); });
    case MathFunction::tanh:
      return apply_blocks(x, y, n, [](T v) { return math::tanh(v); });
    case MathFunction::sinpi:
      return apply_blocks(x, y, n, [](T v) {
        T sine, cosine;
        math::sincospi(v, sine, cosine);
        return sine;
      });
    case MathFunction::cospi:
      return apply_blocks(x, y, n, [](T v) {
        T sine, cosine;
        math::sincospi(v, sine, cosine);
        return cosine;
      });
    case MathFunction::log_factorial:
      return apply_blocks(x, y, n, [](T v) { return special::log_factorial(v); });
    case MathFunction::digamma_of_next:
      return apply_blocks(x, y, n, [](T v) { return special::digamma_of_next(v); });
    case MathFunction::log_gamma_half_step:
      return apply_blocks(x, y, n, [](T v) { return special::log_gamma_half_step(v).value; });
    case MathFunction::log_gamma_half_step_slope:
      return apply_blocks(x, y, n, [](T v) { return special::log_gamma_half_step(v).slope; });
    case MathFunction::log_one_plus_square:
      return apply_blocks(x, y, n, [](T v) { return special::log_one_plus_square(v); });
  }
}

template <typename T>
void apply(MathFunction function, const T* x, T* y, int64_t n) {
  parallel_chunks((n + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t begin = chunk * kChunk;
    const int64_t length = n - begin < kChunk ? n - begin : kChunk;
    apply_chunk(function, x + begin, y + begin, length);
  });
}

}  // namespace

namespace BSL_ISA {
extern const MathKernels math_kernels = {apply<float>, apply<double>};
}  // namespace BSL_ISA
}  // namespace bsl
