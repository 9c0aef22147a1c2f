#include "core/distributions/normal_pointwise.h"

#include "cuda/pointwise_kernels.h"

namespace bsl {
namespace {

template <template <Parametrization> class Op>
constexpr PointwiseKernels kKernels =
    pointwise_kernels<Op<Parametrization::softplus>, Op<Parametrization::scale>,
                      Op<Parametrization::log_scale>, Op<Parametrization::log_var>>();

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels normal_kl_kernels = kKernels<normal::Kl>;
extern const PointwiseKernels normal_rsample_kernels = kKernels<normal::Rsample>;
extern const PointwiseKernels normal_rsample_kl_kernels = kKernels<normal::RsampleKl>;
}  // namespace BSL_ISA
}  // namespace bsl
