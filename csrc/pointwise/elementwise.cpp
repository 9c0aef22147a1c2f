#include "core/bijectors/elementwise.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace BSL_ISA {
extern const PointwiseKernels leaky_relu_transform_kernels =
    pointwise_kernels<elementwise::LeakyRelu<false>, elementwise::LeakyRelu<true>>();
extern const PointwiseKernels sigmoid_transform_kernels =
    pointwise_kernels<elementwise::Sigmoid<false>, elementwise::Sigmoid<true>>();
extern const PointwiseKernels softplus_transform_kernels =
    pointwise_kernels<elementwise::Softplus<false>, elementwise::Softplus<true>>();
extern const PointwiseKernels tanh_transform_kernels =
    pointwise_kernels<elementwise::Tanh<false>, elementwise::Tanh<true>>();
}  // namespace BSL_ISA
}  // namespace bsl
