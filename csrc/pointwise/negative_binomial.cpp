#include "core/distributions/negative_binomial.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels negative_binomial_log_prob_kernels =
    pointwise_kernels<negative_binomial::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
