#include "core/distributions/generalized_kl.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels generalized_kl_kernels = pointwise_kernels<generalized_kl::Kl>();
}  // namespace BSL_ISA
}  // namespace bsl
