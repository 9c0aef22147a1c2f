// One wheel serves every CPU. Kernel sources are compiled once per instruction set. The best set
// that the machine has is chosen at run time.
//
// A family `foo` declares in cpu/foo.h a table of function pointers, `struct FooKernels`, and
// BSL_DECLARE_KERNELS(FooKernels, foo_kernels). cpu/foo.cpp, compiled with -DBSL_ISA=<name>,
// defines `bsl::BSL_ISA::foo_kernels`. Callers write BSL_SELECT(foo_kernels).
#pragma once

namespace bsl {

enum class Isa { baseline, avx2, avx512 };

// The instruction set in use. At the start it is the best one that was built and that the machine
// has.
Isa active_isa();
bool isa_available(Isa isa);
void set_active_isa(Isa isa);

}  // namespace bsl

#if defined(BSL_HAVE_X86_LEVELS)
#define BSL_DECLARE_KERNELS(Type, name) \
  namespace baseline {                  \
  extern const Type name;               \
  }                                     \
  namespace avx2 {                      \
  extern const Type name;               \
  }                                     \
  namespace avx512 {                    \
  extern const Type name;               \
  }
#define BSL_SELECT(name)                                           \
  (::bsl::active_isa() == ::bsl::Isa::avx512 ? ::bsl::avx512::name \
   : ::bsl::active_isa() == ::bsl::Isa::avx2 ? ::bsl::avx2::name   \
                                             : ::bsl::baseline::name)
#else
#define BSL_DECLARE_KERNELS(Type, name) \
  namespace baseline {                  \
  extern const Type name;               \
  }
#define BSL_SELECT(name) (::bsl::baseline::name)
#endif
