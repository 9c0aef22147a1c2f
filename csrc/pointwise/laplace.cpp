#include "core/distributions/laplace.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

template <template <Parametrization, typename> class Op>
constexpr PointwiseKernels kKernels = pointwise_kernels<
    Op<Parametrization::softplus, laplace::Base>, Op<Parametrization::scale, laplace::Base>,
    Op<Parametrization::log_scale, laplace::Base>, Op<Parametrization::log_var, laplace::Base>>();

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels laplace_rsample_kernels = kKernels<location_scale::Rsample>;
extern const PointwiseKernels laplace_rsample_log_prob_kernels =
    kKernels<location_scale::RsampleLogProb>;
extern const PointwiseKernels laplace_log_prob_kernels = kKernels<location_scale::LogProb>;
}  // namespace BSL_ISA
}  // namespace bsl
