#include "core/distributions/normal_log_prob.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels normal_log_prob_kernels = pointwise_kernels<
    normal::LogProb<Parametrization::softplus>, normal::LogProb<Parametrization::scale>,
    normal::LogProb<Parametrization::log_scale>, normal::LogProb<Parametrization::log_var>>();
}  // namespace BSL_ISA
}  // namespace bsl
