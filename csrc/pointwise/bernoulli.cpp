#include "core/distributions/bernoulli.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels bernoulli_log_prob_kernels = pointwise_kernels<bernoulli::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
