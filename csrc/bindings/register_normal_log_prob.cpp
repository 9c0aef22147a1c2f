#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "cpu/normal_log_prob.h"

namespace py = pybind11;

namespace bsl {
namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

// Returns whether all scales are valid.
bool normal_log_prob_forward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                             PyOperand loc, PyOperand raw_scale, int parametrization, int reduction,
                             uintptr_t log_prob) {
  int bad_scale = 0;
  NormalLogProbForward a{};
  a.shape = make_shape(sizes, {&x, &loc, &raw_scale});
  a.x = x.operand;
  a.loc = loc.operand;
  a.raw_scale = raw_scale.operand;
  a.parametrization = static_cast<Parametrization>(parametrization);
  a.reduction = static_cast<Reduction>(reduction);
  a.log_prob = pointer(log_prob);
  a.bad_scale = &bad_scale;
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  {
    py::gil_scoped_release release;
    (is_double ? BSL_SELECT(normal_log_prob_kernels).forward_double
               : BSL_SELECT(normal_log_prob_kernels).forward_float)(a);
  }
  return bad_scale == 0;
}

void normal_log_prob_backward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                              PyOperand loc, PyOperand raw_scale, int parametrization,
                              PyOperand grad, uintptr_t grad_x, uintptr_t grad_loc,
                              uintptr_t grad_raw_scale) {
  NormalLogProbBackward a{};
  a.shape = make_shape(sizes, {&x, &loc, &raw_scale, &grad});
  a.x = x.operand;
  a.loc = loc.operand;
  a.raw_scale = raw_scale.operand;
  a.parametrization = static_cast<Parametrization>(parametrization);
  a.grad = grad.operand;
  a.grad_x = pointer(grad_x);
  a.grad_loc = pointer(grad_loc);
  a.grad_raw_scale = pointer(grad_raw_scale);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(normal_log_prob_kernels).backward_double
             : BSL_SELECT(normal_log_prob_kernels).backward_float)(a);
}

}  // namespace

void register_normal_log_prob(py::module_& m) {
  m.def("normal_log_prob_forward", &normal_log_prob_forward);
  m.def("normal_log_prob_backward", &normal_log_prob_backward);
}

}  // namespace bsl
