#include "core/distributions/poisson.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels poisson_log_prob_kernels = pointwise_kernels<poisson::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
