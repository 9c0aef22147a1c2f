#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "bindings/spline_settings.h"
#include "cpu/rational_quadratic.h"

namespace py = pybind11;

namespace bsl {
namespace {

// Returns whether all of x lies inside the domain.
bool rational_quadratic_forward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                                PyOperand widths, PyOperand heights, PyOperand derivatives,
                                int bins, int tails, bool inverse, double bound, double min_width,
                                double min_height, double min_derivative, uintptr_t y,
                                int reduction, uintptr_t log_det) {
  int outside = 0;
  SplineForward a{};
  static_cast<SplineSettings&>(a) =
      spline_settings(bins, tails, inverse, bound, min_width, min_height, min_derivative);
  a.shape = make_shape(sizes, {&x, &widths, &heights, &derivatives});
  a.x = x.operand;
  a.widths = widths.operand;
  a.heights = heights.operand;
  a.derivatives = derivatives.operand;
  a.y = pointer(y);
  a.reduction = static_cast<Reduction>(reduction);
  a.log_det = pointer(log_det);
  a.outside = &outside;
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction, kSplineChunk);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  {
    py::gil_scoped_release release;
    (is_double ? BSL_SELECT(spline_kernels).forward_double
               : BSL_SELECT(spline_kernels).forward_float)(a);
  }
  return outside == 0;
}

void rational_quadratic_backward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                                 PyOperand widths, PyOperand heights, PyOperand derivatives,
                                 int bins, int tails, bool inverse, double bound, double min_width,
                                 double min_height, double min_derivative, PyOperand grad_y,
                                 PyOperand grad_log_det, uintptr_t grad_x, uintptr_t grad_widths,
                                 uintptr_t grad_heights, uintptr_t grad_derivatives) {
  SplineBackward a{};
  static_cast<SplineSettings&>(a) =
      spline_settings(bins, tails, inverse, bound, min_width, min_height, min_derivative);
  a.shape = make_shape(sizes, {&x, &widths, &heights, &derivatives, &grad_y, &grad_log_det});
  a.x = x.operand;
  a.widths = widths.operand;
  a.heights = heights.operand;
  a.derivatives = derivatives.operand;
  a.grad_y = grad_y.operand;
  a.grad_log_det = grad_log_det.operand;
  a.grad_x = pointer(grad_x);
  a.grad_widths = pointer(grad_widths);
  a.grad_heights = pointer(grad_heights);
  a.grad_derivatives = pointer(grad_derivatives);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none, kSplineChunk);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(spline_kernels).backward_double
             : BSL_SELECT(spline_kernels).backward_float)(a);
}

}  // namespace

void register_rational_quadratic(py::module_& m) {
  m.attr("MAX_BINS") = kMaxBins;
  m.def("rational_quadratic_forward", &rational_quadratic_forward);
  m.def("rational_quadratic_backward", &rational_quadratic_backward);
}

}  // namespace bsl
