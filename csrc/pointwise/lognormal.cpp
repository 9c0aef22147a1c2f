#include "core/distributions/lognormal.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {

extern const PointwiseKernels lognormal_log_prob_kernels = kParametrizations<lognormal::LogProb>;
extern const PointwiseKernels lognormal_rsample_kernels = kParametrizations<lognormal::Rsample>;
}  // namespace BSL_ISA
}  // namespace bsl
