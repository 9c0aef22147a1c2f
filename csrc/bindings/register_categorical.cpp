#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "cpu/categorical.h"

namespace py = pybind11;

namespace bsl {
namespace {

// Returns whether all indices are classes.
bool categorical_forward(bool is_double, int64_t rows, int64_t classes, uintptr_t logits,
                         uintptr_t index, int reduction, uintptr_t log_prob) {
  int bad_index = 0;
  CategoricalForward a{};
  a.classes = classes;
  a.logits = pointer(logits);
  a.index = static_cast<const int64_t*>(pointer(index));
  a.reduction = static_cast<Reduction>(reduction);
  a.log_prob = pointer(log_prob);
  a.bad_index = &bad_index;
  a.plan = plan_rows(rows, classes, a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  {
    py::gil_scoped_release release;
    (is_double ? BSL_SELECT(categorical_kernels).forward_double
               : BSL_SELECT(categorical_kernels).forward_float)(a);
  }
  return bad_index == 0;
}

void categorical_backward(bool is_double, const std::vector<int64_t>& sizes, int64_t classes,
                          uintptr_t logits, uintptr_t index, PyOperand grad,
                          uintptr_t grad_logits) {
  CategoricalBackward a{};
  a.shape = make_shape(sizes, {&grad});
  a.classes = classes;
  a.logits = pointer(logits);
  a.index = static_cast<const int64_t*>(pointer(index));
  a.grad = grad.operand;
  a.grad_logits = pointer(grad_logits);
  a.plan = plan_rows(a.shape.numel, classes, Reduction::none);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(categorical_kernels).backward_double
             : BSL_SELECT(categorical_kernels).backward_float)(a);
}

}  // namespace

void register_categorical(py::module_& m) {
  m.def("categorical_forward", &categorical_forward);
  m.def("categorical_backward", &categorical_backward);
}

}  // namespace bsl
