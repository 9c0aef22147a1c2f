#include "core/distributions/laplace_kl.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels laplace_kl_kernels =
    pointwise_kernels<laplace::Kl<Parametrization::softplus>, laplace::Kl<Parametrization::scale>,
                      laplace::Kl<Parametrization::log_scale>,
                      laplace::Kl<Parametrization::log_var>>();
}  // namespace BSL_ISA
}  // namespace bsl
