#include "core/distributions/logistic.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

template <template <Parametrization, typename> class Op>
constexpr PointwiseKernels kKernels = pointwise_kernels<
    Op<Parametrization::softplus, logistic::Base>, Op<Parametrization::scale, logistic::Base>,
    Op<Parametrization::log_scale, logistic::Base>, Op<Parametrization::log_var, logistic::Base>>();

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels logistic_rsample_kernels = kKernels<location_scale::Rsample>;
extern const PointwiseKernels logistic_rsample_log_prob_kernels =
    kKernels<location_scale::RsampleLogProb>;
extern const PointwiseKernels logistic_log_prob_kernels = kKernels<location_scale::LogProb>;
}  // namespace BSL_ISA
}  // namespace bsl
