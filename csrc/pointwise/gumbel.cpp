#include "core/distributions/gumbel.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels gumbel_rsample_kernels =
    kParametrizations<location_scale::Rsample, gumbel::Base>;
extern const PointwiseKernels gumbel_rsample_log_prob_kernels =
    kParametrizations<location_scale::RsampleLogProb, gumbel::Base>;
extern const PointwiseKernels gumbel_log_prob_kernels =
    kParametrizations<location_scale::LogProb, gumbel::Base>;
}  // namespace BSL_ISA
}  // namespace bsl
