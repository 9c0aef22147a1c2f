#include "core/distributions/student_t.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

template <template <Parametrization> class Op>
constexpr PointwiseKernels kKernels =
    pointwise_kernels<Op<Parametrization::softplus>, Op<Parametrization::scale>,
                      Op<Parametrization::log_scale>, Op<Parametrization::log_var>>();

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels student_t_log_prob_kernels = kKernels<student_t::LogProb>;
extern const PointwiseKernels student_t_rsample_kernels = kKernels<student_t::Rsample>;
}  // namespace BSL_ISA
}  // namespace bsl
