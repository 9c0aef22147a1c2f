#include "core/distributions/logistic.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels logistic_rsample_kernels =
    kParametrizations<location_scale::Rsample, logistic::Base>;
extern const PointwiseKernels logistic_rsample_log_prob_kernels =
    kParametrizations<location_scale::RsampleLogProb, logistic::Base>;
extern const PointwiseKernels logistic_log_prob_kernels =
    kParametrizations<location_scale::LogProb, logistic::Base>;
}  // namespace BSL_ISA
}  // namespace bsl
