#include "core/distributions/student_t.h"

#include "pointwise/parametrizations.h"

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels student_t_log_prob_kernels = kParametrizations<student_t::LogProb>;
extern const PointwiseKernels student_t_rsample_kernels = kParametrizations<student_t::Rsample>;
}  // namespace BSL_ISA
}  // namespace bsl
