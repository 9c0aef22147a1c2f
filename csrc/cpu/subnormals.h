// Subnormal numbers: those next to 0, smaller than the smallest normal one.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace bsl {
namespace {

#if defined(__SSE2__)
using Control = uint32_t;
constexpr Control kSubnormalsAreZero = 0x8040;  // operands and results
inline Control control() { return _mm_getcsr(); }
inline void set_control(Control control) { _mm_setcsr(control); }
#elif defined(__aarch64__)
using Control = uint64_t;
constexpr Control kSubnormalsAreZero = Control{1} << 24;
inline Control control() {
  Control found;
  asm volatile("mrs %0, fpcr" : "=r"(found));
  return found;
}
inline void set_control(Control control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#else
using Control = int;
constexpr Control kSubnormalsAreZero = 0;
inline Control control() { return 0; }
inline void set_control(Control) {}
#endif

// Calls f(), which does not throw. Its instructions take subnormal numbers for 0, and give 0 for
// them. CPUs compute with them a hundred times as slowly, so few of them would slow down a product
// of matrices, which reads each number hundreds of times.
template <typename F>
inline void without_subnormals(const F& f) {
  const Control before = control();
  set_control(before | kSubnormalsAreZero);
  f();
  set_control(before);
}

}  // namespace
}  // namespace bsl
