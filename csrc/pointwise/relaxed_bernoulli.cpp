#include "core/distributions/relaxed_bernoulli.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels relaxed_bernoulli_rsample_kernels =
    pointwise_kernels<relaxed_bernoulli::Rsample<false>, relaxed_bernoulli::Rsample<true>>();
}  // namespace BSL_ISA
}  // namespace bsl
