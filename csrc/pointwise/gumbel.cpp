#include "core/distributions/gumbel.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

template <template <Parametrization, typename> class Op>
constexpr PointwiseKernels kKernels = pointwise_kernels<
    Op<Parametrization::softplus, gumbel::Base>, Op<Parametrization::scale, gumbel::Base>,
    Op<Parametrization::log_scale, gumbel::Base>, Op<Parametrization::log_var, gumbel::Base>>();

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels gumbel_rsample_kernels = kKernels<location_scale::Rsample>;
extern const PointwiseKernels gumbel_rsample_log_prob_kernels =
    kKernels<location_scale::RsampleLogProb>;
extern const PointwiseKernels gumbel_log_prob_kernels = kKernels<location_scale::LogProb>;
}  // namespace BSL_ISA
}  // namespace bsl
