#include <pybind11/pybind11.h>

#include "bindings/operands.h"
#include "cpu/iwae_bound.h"

namespace py = pybind11;

namespace bsl {
namespace {

void iwae_bound_forward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                        uintptr_t log_weights, uintptr_t bound) {
  const IwaeBoundForward a{outer, samples, inner, pointer(log_weights), pointer(bound)};
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(iwae_bound_kernels).forward_double
             : BSL_SELECT(iwae_bound_kernels).forward_float)(a);
}

void iwae_bound_backward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                         uintptr_t log_weights, uintptr_t grad, bool squared,
                         uintptr_t grad_log_weights) {
  const IwaeBoundBackward a{outer,
                            samples,
                            inner,
                            pointer(log_weights),
                            pointer(grad),
                            squared,
                            pointer(grad_log_weights)};
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(iwae_bound_kernels).backward_double
             : BSL_SELECT(iwae_bound_kernels).backward_float)(a);
}

}  // namespace

void register_iwae_bound(py::module_& m) {
  m.def("iwae_bound_forward", &iwae_bound_forward);
  m.def("iwae_bound_backward", &iwae_bound_backward);
}

}  // namespace bsl
