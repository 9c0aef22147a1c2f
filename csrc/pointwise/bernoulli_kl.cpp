#include "core/distributions/bernoulli_kl.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels bernoulli_kl_kernels = pointwise_kernels<bernoulli::Kl>();
}  // namespace BSL_ISA
}  // namespace bsl
