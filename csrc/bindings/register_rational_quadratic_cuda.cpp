// As register_rational_quadratic.cpp, with a CUDA stream to run on. Log-determinants are those of
// every element.
#include <pybind11/pybind11.h>

#include <array>

#include "bindings/launch.h"
#include "bindings/operands.h"
#include "bindings/spline_settings.h"
#include "cuda/rational_quadratic.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

void describe(SplineCall& a, const std::vector<int64_t>& sizes, PyOperand& x,
              std::array<PyOperand*, 3> rows, const SplineSettings& settings,
              std::vector<PyOperand*> others) {
  others.insert(others.end(), {&x, rows[0], rows[1], rows[2]});
  static_cast<SplineSettings&>(a) = settings;
  a.shape = make_shape(sizes, others);
  a.x = x.operand;
  for (size_t i = 0; i < 3; ++i) a.rows[i] = rows[i]->operand;
}

void rational_quadratic_forward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                                PyOperand widths, PyOperand heights, PyOperand derivatives,
                                int bins, int tails, bool inverse, double bound, double min_width,
                                double min_height, double min_derivative, uintptr_t y,
                                uintptr_t log_det, uintptr_t cuda_stream) {
  SplineForward a{};
  describe(a, sizes, x, {&widths, &heights, &derivatives},
           spline_settings(bins, tails, inverse, bound, min_width, min_height, min_derivative), {});
  a.y = pointer(y);
  a.log_det = pointer(log_det);
  py::gil_scoped_release release;
  (is_double ? spline_kernels.forward_double : spline_kernels.forward_float)(
      a, stream_of(cuda_stream));
  check_launch("rational_quadratic_spline", sizes);
}

void rational_quadratic_backward(bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                                 PyOperand widths, PyOperand heights, PyOperand derivatives,
                                 int bins, int tails, bool inverse, double bound, double min_width,
                                 double min_height, double min_derivative, PyOperand grad_y,
                                 PyOperand grad_log_det, uintptr_t grad_x, uintptr_t grad_widths,
                                 uintptr_t grad_heights, uintptr_t grad_derivatives,
                                 uintptr_t cuda_stream) {
  SplineBackward a{};
  describe(a, sizes, x, {&widths, &heights, &derivatives},
           spline_settings(bins, tails, inverse, bound, min_width, min_height, min_derivative),
           {&grad_y, &grad_log_det});
  a.grad_y = grad_y.operand;
  a.grad_log_det = grad_log_det.operand;
  a.grad_x = pointer(grad_x);
  a.grad_rows[0] = pointer(grad_widths);
  a.grad_rows[1] = pointer(grad_heights);
  a.grad_rows[2] = pointer(grad_derivatives);
  py::gil_scoped_release release;
  (is_double ? spline_kernels.backward_double : spline_kernels.backward_float)(
      a, stream_of(cuda_stream));
  check_launch("rational_quadratic_spline", sizes);
}

}  // namespace

void register_rational_quadratic(py::module_& m) {
  m.def("rational_quadratic_forward", &rational_quadratic_forward);
  m.def("rational_quadratic_backward", &rational_quadratic_backward);
}

}  // namespace bsl::cuda
