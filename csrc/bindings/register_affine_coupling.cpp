#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "cpu/affine_coupling.h"

namespace py = pybind11;

namespace bsl {
namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

void affine_coupling_forward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                             PyOperand shift, PyOperand raw_scale, int scale_fn, bool inverse,
                             uintptr_t y, int reduction, uintptr_t log_det) {
  AffineForward a{};
  a.shape = make_shape(sizes, {&x, &shift, &raw_scale});
  a.x = x.operand;
  a.shift = shift.operand;
  a.raw_scale = raw_scale.operand;
  a.scale_fn = static_cast<ScaleFn>(scale_fn);
  a.inverse = inverse;
  a.y = pointer(y);
  a.reduction = static_cast<Reduction>(reduction);
  a.log_det = pointer(log_det);
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(affine_kernels).forward_double
             : BSL_SELECT(affine_kernels).forward_float)(a);
}

void affine_coupling_backward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                              PyOperand shift, PyOperand raw_scale, int scale_fn, bool inverse,
                              PyOperand grad_y, PyOperand grad_log_det, uintptr_t grad_x,
                              uintptr_t grad_shift, uintptr_t grad_raw_scale) {
  AffineBackward a{};
  a.shape = make_shape(sizes, {&x, &shift, &raw_scale, &grad_y, &grad_log_det});
  a.x = x.operand;
  a.shift = shift.operand;
  a.raw_scale = raw_scale.operand;
  a.scale_fn = static_cast<ScaleFn>(scale_fn);
  a.inverse = inverse;
  a.grad_y = grad_y.operand;
  a.grad_log_det = grad_log_det.operand;
  a.grad_x = pointer(grad_x);
  a.grad_shift = pointer(grad_shift);
  a.grad_raw_scale = pointer(grad_raw_scale);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(affine_kernels).backward_double
             : BSL_SELECT(affine_kernels).backward_float)(a);
}

}  // namespace

void register_affine_coupling(py::module_& m) {
  m.def("affine_coupling_forward", &affine_coupling_forward);
  m.def("affine_coupling_backward", &affine_coupling_backward);
}

}  // namespace bsl
