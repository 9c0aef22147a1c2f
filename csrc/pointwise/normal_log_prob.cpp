#include "core/distributions/normal_log_prob.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels normal_log_prob_kernels = kParametrizations<normal::LogProb>;
extern const PointwiseKernels normal_rsample_log_prob_kernels =
    kParametrizations<location_scale::RsampleLogProb, normal::Base>;
}  // namespace BSL_ISA
}  // namespace bsl
