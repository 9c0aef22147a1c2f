#include "core/distributions/von_mises.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels von_mises_log_prob_kernels = pointwise_kernels<von_mises::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
