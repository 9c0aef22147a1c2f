#include "core/distributions/poisson.h"

#include "cpu/pointwise_kernels.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels poisson_log_prob_kernels = pointwise_kernels<poisson::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
