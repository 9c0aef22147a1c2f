#include "core/distributions/discretized_logistic.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels discretized_logistic_log_prob_kernels =
    pointwise_kernels<discretized_logistic::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
