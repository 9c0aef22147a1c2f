#include "core/distributions/laplace.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels laplace_rsample_kernels =
    kParametrizations<location_scale::Rsample, laplace::Base>;
extern const PointwiseKernels laplace_rsample_log_prob_kernels =
    kParametrizations<location_scale::RsampleLogProb, laplace::Base>;
extern const PointwiseKernels laplace_log_prob_kernels =
    kParametrizations<location_scale::LogProb, laplace::Base>;
}  // namespace BSL_ISA
}  // namespace bsl
