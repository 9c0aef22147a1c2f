// All ops with a softmax, by their place in the table of rows/ops.h.
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/softmax_call.h"
#include "cpu/softmax.h"

namespace py = pybind11;

namespace bsl {
namespace {

struct Entry {
  const char* name;
  const SoftmaxKernels& (*kernels)();
};

#define BSL_ENTRY(name) \
  {#name, []() -> const SoftmaxKernels& { return BSL_SELECT(name##_kernels); }},
constexpr Entry kOps[] = {BSL_SOFTMAX_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

// Returns whether all indices are columns.
bool softmax_forward(const PySoftmaxCall& call, int reduction, uintptr_t result) {
  int invalid = 0;
  SoftmaxForward a{};
  start_softmax(a, call, {});
  a.result = pointer(result);
  a.reduction = static_cast<Reduction>(reduction);
  a.invalid = &invalid;
  const ChunkPlan& plan = a.shape.plan = plan_rows(a.shape.numel, a.columns, a.reduction);
  const std::unique_ptr<double[]> partials(new double[plan.n_partials()]);
  a.partials = plan.n_partials() > 0 ? partials.get() : nullptr;
  const SoftmaxKernels& kernels = kOps[call.op].kernels();
  {
    py::gil_scoped_release release;
    (call.is_double ? kernels.forward_double : kernels.forward_float)(a);
  }
  return invalid == 0;
}

void softmax_backward(const PySoftmaxCall& call, PyOperand grad, uintptr_t grad_x) {
  SoftmaxBackward a{};
  start_softmax(a, call, {&grad});
  a.shape.plan = plan_rows(a.shape.numel, a.columns, Reduction::none);
  a.grad = grad.operand;
  a.grad_x = pointer(grad_x);
  const SoftmaxKernels& kernels = kOps[call.op].kernels();
  py::gil_scoped_release release;
  (call.is_double ? kernels.backward_double : kernels.backward_float)(a);
}

}  // namespace

void register_softmax(py::module_& m) {
  m.def("softmax_ops", []() { return describe_softmaxes(kOps); });
  m.def("softmax_forward", &softmax_forward);
  m.def("softmax_backward", &softmax_backward);
}

}  // namespace bsl
