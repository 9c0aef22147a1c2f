#include "core/distributions/normal_pointwise.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels normal_kl_kernels = kParametrizations<normal::Kl>;
extern const PointwiseKernels normal_rsample_kernels = kParametrizations<normal::Rsample>;
extern const PointwiseKernels normal_rsample_kl_kernels = kParametrizations<normal::RsampleKl>;
}  // namespace BSL_ISA
}  // namespace bsl
