// As register_rank_one.cpp, with a CUDA stream to run on, and room for coefficients from the
// caller.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "bindings/operands.h"
#include "cuda/rank_one.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

struct Entry {
  const char* name;
  const RankOneKernels* kernels;
};
constexpr Entry kOps[] = {{"planar", &planar_kernels}, {"radial", &radial_kernels}};

void describe(RankOneCall& a, const std::vector<int64_t>& sizes, int64_t width,
              std::vector<PyOperand>& rows, std::vector<PyOperand>& scalars,
              std::vector<PyOperand*> others) {
  if (rows.size() != 3 || scalars.size() != 2) throw std::invalid_argument("number of operands");
  for (PyOperand& o : rows) others.push_back(&o);
  for (PyOperand& o : scalars) others.push_back(&o);
  a.shape = make_shape(sizes, others);
  a.width = width;
  for (size_t i = 0; i < 3; ++i) a.rows[i] = rows[i].operand;
  for (size_t i = 0; i < 2; ++i) a.scalars[i] = scalars[i].operand;
}

void rank_one_forward(bool radial, bool is_double, const std::vector<int64_t>& sizes, int64_t width,
                      std::vector<PyOperand> rows, std::vector<PyOperand> scalars, uintptr_t y,
                      uintptr_t log_det, uintptr_t cuda_stream) {
  RankOneForward a{};
  describe(a, sizes, width, rows, scalars, {});
  a.y = pointer(y);
  a.log_det = pointer(log_det);
  const RankOneKernels& found = *kOps[radial].kernels;
  py::gil_scoped_release release;
  (is_double ? found.forward_double : found.forward_float)(a, stream_of(cuda_stream));
  check_launch(kOps[radial].name, sizes);
}

void rank_one_backward(bool radial, bool is_double, const std::vector<int64_t>& sizes,
                       int64_t width, std::vector<PyOperand> rows, std::vector<PyOperand> scalars,
                       PyOperand grad_y, PyOperand grad_log_det,
                       const std::vector<uintptr_t>& grads, const std::vector<uintptr_t>& sums,
                       uintptr_t coefficients, uintptr_t cuda_stream) {
  RankOneBackward a{};
  describe(a, sizes, width, rows, scalars, {&grad_y, &grad_log_det});
  a.grad_y = grad_y.operand;
  a.grad_log_det = grad_log_det.operand;
  for (size_t i = 0; i < 5; ++i) a.grads[i] = pointer(grads.at(i));
  for (size_t i = 0; i < 3; ++i) a.sums[i] = static_cast<double*>(pointer(sums.at(i)));
  a.coefficients = pointer(coefficients);
  const RankOneKernels& found = *kOps[radial].kernels;
  py::gil_scoped_release release;
  (is_double ? found.backward_double : found.backward_float)(a, stream_of(cuda_stream));
  check_launch(kOps[radial].name, sizes);
}

}  // namespace

void register_rank_one(py::module_& m) {
  m.attr("RANK_ONE_COEFFICIENTS") = kRankOneCoefficients;
  m.def("rank_one_chunks", &rank_one_chunks);
  m.def("rank_one_forward", &rank_one_forward);
  m.def("rank_one_backward", &rank_one_backward);
}

}  // namespace bsl::cuda
