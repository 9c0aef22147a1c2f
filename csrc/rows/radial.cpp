#include "core/bijectors/radial.h"

#include "row_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const RowKernels radial_kernels = row_kernels<radial::Radial>();
}  // namespace BSL_ISA
}  // namespace bsl
