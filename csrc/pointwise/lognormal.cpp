#include "core/distributions/lognormal.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

template <template <Parametrization> class Op>
constexpr PointwiseKernels kKernels =
    pointwise_kernels<Op<Parametrization::softplus>, Op<Parametrization::scale>,
                      Op<Parametrization::log_scale>, Op<Parametrization::log_var>>();

}  // namespace

namespace BSL_ISA {

extern const PointwiseKernels lognormal_log_prob_kernels = kKernels<lognormal::LogProb>;
extern const PointwiseKernels lognormal_rsample_kernels = kKernels<lognormal::Rsample>;
}  // namespace BSL_ISA
}  // namespace bsl
