#include "core/bijectors/planar.h"

#include "row_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const RowKernels planar_kernels = row_kernels<planar::Planar>();
}  // namespace BSL_ISA
}  // namespace bsl
