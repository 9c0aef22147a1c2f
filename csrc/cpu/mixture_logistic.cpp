#include "cpu/mixture_logistic.h"

namespace bsl {
namespace BSL_ISA {
extern const RowKernels mixture_logistic_transform_kernels =
    element_kernels<MixtureLogistic, MixtureLogisticInverse>();
extern const RowKernels deep_sigmoidal_transform_kernels =
    element_kernels<DeepSigmoidal, DeepSigmoidalInverse>();
}  // namespace BSL_ISA
}  // namespace bsl
