#include "core/distributions/normal_log_prob.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace {

// With and without the gradient along the path alone, in the order of Python's options.
template <Parametrization P, bool kPathOnly>
using Rsample = normal::RsampleLogProb<P, kPathOnly>;

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels normal_log_prob_kernels = kParametrizations<normal::LogProb>;
extern const PointwiseKernels normal_rsample_log_prob_kernels = pointwise_kernels<
    Rsample<Parametrization::softplus, false>, Rsample<Parametrization::softplus, true>,
    Rsample<Parametrization::scale, false>, Rsample<Parametrization::scale, true>,
    Rsample<Parametrization::log_scale, false>, Rsample<Parametrization::log_scale, true>,
    Rsample<Parametrization::log_var, false>, Rsample<Parametrization::log_var, true>>();
}  // namespace BSL_ISA
}  // namespace bsl
