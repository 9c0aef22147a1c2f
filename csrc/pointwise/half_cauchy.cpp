#include "core/distributions/half_cauchy.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

template <template <Parametrization> class Op>
constexpr PointwiseKernels kKernels =
    pointwise_kernels<Op<Parametrization::softplus>, Op<Parametrization::scale>,
                      Op<Parametrization::log_scale>, Op<Parametrization::log_var>>();

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels half_cauchy_kl_kernels = kKernels<half_cauchy::Kl>;
extern const PointwiseKernels half_cauchy_log_prob_kernels = kKernels<half_cauchy::LogProb>;
extern const PointwiseKernels half_cauchy_rsample_kernels = kKernels<half_cauchy::Rsample>;
}  // namespace BSL_ISA
}  // namespace bsl
