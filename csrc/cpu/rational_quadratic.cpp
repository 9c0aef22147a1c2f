#include "cpu/rational_quadratic.h"

namespace bsl {
namespace BSL_ISA {
extern const RowKernels rational_quadratic_spline_kernels =
    element_kernels_of_variants<SplineTile, kSplineVariants>();
}  // namespace BSL_ISA
}  // namespace bsl
