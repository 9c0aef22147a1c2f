#include "core/bijectors/affine_coupling.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels affine_coupling_kernels =
    pointwise_kernels<affine::Coupling<ScaleFn::tanh, false>, affine::Coupling<ScaleFn::tanh, true>,
                      affine::Coupling<ScaleFn::exp, false>, affine::Coupling<ScaleFn::exp, true>,
                      affine::Coupling<ScaleFn::sigmoid, false>,
                      affine::Coupling<ScaleFn::sigmoid, true>>();
}  // namespace BSL_ISA
}  // namespace bsl
