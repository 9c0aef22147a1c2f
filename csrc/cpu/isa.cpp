#include "cpu/isa.h"

#include <atomic>

namespace bsl {
namespace {

// __builtin_cpu_supports reads CPUID and, for the AVX families, XGETBV. So it reports no support on
// a machine whose operating system does not save the wide registers.
bool machine_has(Isa isa) {
#if defined(BSL_HAVE_X86_LEVELS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512cd");
  }
  return false;
#else
  return isa == Isa::baseline;
#endif
}

Isa best() {
  if (machine_has(Isa::avx512)) return Isa::avx512;
  if (machine_has(Isa::avx2)) return Isa::avx2;
  return Isa::baseline;
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa{best()};
  return isa;
}

}  // namespace

Isa active_isa() { return active().load(std::memory_order_relaxed); }
bool isa_available(Isa isa) { return machine_has(isa); }
void set_active_isa(Isa isa) { active().store(isa, std::memory_order_relaxed); }

}  // namespace bsl
