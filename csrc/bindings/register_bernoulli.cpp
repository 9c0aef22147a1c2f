#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "cpu/bernoulli.h"

namespace py = pybind11;

namespace bsl {
namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

void bernoulli_forward(bool is_double, const std::vector<int64_t>& sizes, PyOperand logits,
                       PyOperand x, int reduction, uintptr_t log_prob) {
  BernoulliForward a{};
  a.shape = make_shape(sizes, {&logits, &x});
  a.logits = logits.operand;
  a.x = x.operand;
  a.reduction = static_cast<Reduction>(reduction);
  a.log_prob = pointer(log_prob);
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(bernoulli_kernels).forward_double
             : BSL_SELECT(bernoulli_kernels).forward_float)(a);
}

void bernoulli_backward(bool is_double, const std::vector<int64_t>& sizes, PyOperand logits,
                        PyOperand x, PyOperand grad, uintptr_t grad_logits, uintptr_t grad_x) {
  BernoulliBackward a{};
  a.shape = make_shape(sizes, {&logits, &x, &grad});
  a.logits = logits.operand;
  a.x = x.operand;
  a.grad = grad.operand;
  a.grad_logits = pointer(grad_logits);
  a.grad_x = pointer(grad_x);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(bernoulli_kernels).backward_double
             : BSL_SELECT(bernoulli_kernels).backward_float)(a);
}

}  // namespace

void register_bernoulli(py::module_& m) {
  m.def("bernoulli_forward", &bernoulli_forward);
  m.def("bernoulli_backward", &bernoulli_backward);
}

}  // namespace bsl
