#include "core/distributions/normal_pointwise.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels normal_kl_kernels = kParametrizations<normal::Kl>;
extern const PointwiseKernels normal_kl_fixed_prior_kernels =
    kParametrizations<normal::KlFixedPrior>;
extern const PointwiseKernels normal_rsample_kernels = kParametrizations<normal::Rsample>;
extern const PointwiseKernels normal_rsample_kl_kernels = kParametrizations<normal::RsampleKl>;
extern const PointwiseKernels normal_rsample_kl_fixed_prior_kernels =
    kParametrizations<normal::RsampleKlFixedPrior>;
}  // namespace BSL_ISA
}  // namespace bsl
