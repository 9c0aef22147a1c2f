// The kernels of an op whose scale comes from a raw parameter: a variant for each parametrization,
// in the order of the names in core/distributions/scale.h.
#pragma once

#include "core/distributions/scale.h"

#include "pointwise_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

// `Base` is what else the op takes: see core/distributions/location_scale.h.
template <template <Parametrization, typename...> class Op, typename... Base>
constexpr PointwiseKernels kParametrizations =
    pointwise_kernels<Op<Parametrization::softplus, Base...>, Op<Parametrization::scale, Base...>,
                      Op<Parametrization::log_scale, Base...>,
                      Op<Parametrization::log_var, Base...>>();

}  // namespace
}  // namespace bsl
