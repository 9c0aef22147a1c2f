#include "core/distributions/half_cauchy.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels half_cauchy_kl_kernels = kParametrizations<half_cauchy::Kl>;
extern const PointwiseKernels half_cauchy_log_prob_kernels =
    kParametrizations<half_cauchy::LogProb>;
extern const PointwiseKernels half_cauchy_rsample_kernels = kParametrizations<half_cauchy::Rsample>;
}  // namespace BSL_ISA
}  // namespace bsl
