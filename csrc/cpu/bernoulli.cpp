#include "core/distributions/bernoulli.h"

#include "cpu/pointwise_kernels.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels bernoulli_log_prob_kernels = pointwise_kernels<bernoulli::LogProb>();
}  // namespace BSL_ISA
}  // namespace bsl
