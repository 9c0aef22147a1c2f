#include "cpu/bernstein.h"

namespace bsl {
namespace BSL_ISA {
extern const RowKernels bernstein_transform_kernels =
    element_kernels<BernsteinForward, BernsteinInverse>();
}  // namespace BSL_ISA
}  // namespace bsl
