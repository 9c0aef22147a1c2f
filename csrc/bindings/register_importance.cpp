#include <pybind11/pybind11.h>

#include "bindings/operands.h"
#include "cpu/importance.h"

namespace py = pybind11;

namespace bsl {
namespace {

void importance_forward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                        uintptr_t log_weights, uintptr_t bound) {
  const ImportanceForward a{outer, samples, inner, pointer(log_weights), pointer(bound)};
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(importance_kernels).forward_double
             : BSL_SELECT(importance_kernels).forward_float)(a);
}

void importance_backward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                         uintptr_t log_weights, uintptr_t grad, bool squared,
                         uintptr_t grad_log_weights) {
  const ImportanceBackward a{outer,
                             samples,
                             inner,
                             pointer(log_weights),
                             pointer(grad),
                             squared,
                             pointer(grad_log_weights)};
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(importance_kernels).backward_double
             : BSL_SELECT(importance_kernels).backward_float)(a);
}

}  // namespace

void register_importance(py::module_& m) {
  m.def("importance_forward", &importance_forward);
  m.def("importance_backward", &importance_backward);
}

}  // namespace bsl
