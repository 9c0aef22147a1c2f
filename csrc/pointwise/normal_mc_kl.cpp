#include "core/distributions/normal_mc_kl.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

// Every prior with every parametrization.
template <typename Prior, Parametrization P>
using Op = normal::RsampleMcKl<Prior, P>;

template <typename A, typename B, typename C, typename D, typename E>
constexpr PointwiseKernels kernels_of(normal::PriorList<A, B, C, D, E>) {
  using S = Parametrization;
  return pointwise_kernels<
      Op<A, S::softplus>, Op<A, S::scale>, Op<A, S::log_scale>, Op<A, S::log_var>,
      Op<B, S::softplus>, Op<B, S::scale>, Op<B, S::log_scale>, Op<B, S::log_var>,
      Op<C, S::softplus>, Op<C, S::scale>, Op<C, S::log_scale>, Op<C, S::log_var>,
      Op<D, S::softplus>, Op<D, S::scale>, Op<D, S::log_scale>, Op<D, S::log_var>,
      Op<E, S::softplus>, Op<E, S::scale>, Op<E, S::log_scale>, Op<E, S::log_var>>();
}

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels normal_rsample_mc_kl_kernels = kernels_of(normal::Priors());
}  // namespace BSL_ISA
}  // namespace bsl
