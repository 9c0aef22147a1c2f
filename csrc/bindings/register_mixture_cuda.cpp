// As register_mixture.cpp, with a CUDA stream to run on. Logarithms are those of every element.
#include <pybind11/pybind11.h>

#include <array>

#include "bindings/launch.h"
#include "bindings/operands.h"
#include "cuda/mixture.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

using Constants = std::array<double, kMaxNumbers>;

struct Entry {
  const char* name;
  const MixtureKernels* kernels;
};

// In the order of OPS in bslfast/_native/mixture.py.
constexpr Entry kOps[] = {
    {"mixture_logistic_transform", &mixture_logistic_kernels},
    {"mixture_logistic_transform", &mixture_logistic_inverse_kernels},
    {"discretized_logistic_mixture_log_prob", &discretized_logistic_mixture_kernels},
    {"deep_sigmoidal_transform", &deep_sigmoidal_kernels},
    {"deep_sigmoidal_transform", &deep_sigmoidal_inverse_kernels},
    {"bernstein_transform", &bernstein_kernels},
    {"bernstein_transform", &bernstein_inverse_kernels}};
constexpr int kCount = sizeof(kOps) / sizeof(kOps[0]);

const MixtureKernels& kernels(int op) {
  if (op < 0 || op >= kCount) throw std::invalid_argument("number of an op");
  return *kOps[op].kernels;
}

void describe(MixtureCall& a, const std::vector<int64_t>& sizes, PyOperand& x,
              std::array<PyOperand*, 3> rows, int components, const Constants& numbers,
              std::vector<PyOperand*> others) {
  if (components < 1 || components > kMaxComponents) {
    throw std::invalid_argument("number of components");
  }
  others.insert(others.end(), {&x, rows[0], rows[1], rows[2]});
  a.shape = make_shape(sizes, others);
  a.x = x.operand;
  for (size_t i = 0; i < 3; ++i) a.rows[i] = rows[i]->operand;
  a.components = components;
  for (int i = 0; i < kMaxNumbers; ++i) a.numbers[i] = numbers[i];
}

void mixture_forward(int op, bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                     PyOperand logits, PyOperand loc, PyOperand log_scale, int components,
                     const Constants& numbers, uintptr_t y, uintptr_t log, uintptr_t cuda_stream) {
  MixtureForward a{};
  describe(a, sizes, x, {&logits, &loc, &log_scale}, components, numbers, {});
  a.y = pointer(y);
  a.log = pointer(log);
  const MixtureKernels& found = kernels(op);
  py::gil_scoped_release release;
  (is_double ? found.forward_double : found.forward_float)(a, stream_of(cuda_stream));
  check_launch(kOps[op].name, sizes);
}

void mixture_backward(int op, bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                      PyOperand logits, PyOperand loc, PyOperand log_scale, int components,
                      const Constants& numbers, PyOperand grad_y, PyOperand grad_log,
                      uintptr_t grad_x, uintptr_t grad_logits, uintptr_t grad_loc,
                      uintptr_t grad_log_scale, uintptr_t cuda_stream) {
  MixtureBackward a{};
  describe(a, sizes, x, {&logits, &loc, &log_scale}, components, numbers, {&grad_y, &grad_log});
  a.grad_y = grad_y.operand;
  a.grad_log = grad_log.operand;
  a.grad_x = pointer(grad_x);
  a.grad_rows[0] = pointer(grad_logits);
  a.grad_rows[1] = pointer(grad_loc);
  a.grad_rows[2] = pointer(grad_log_scale);
  const MixtureKernels& found = kernels(op);
  py::gil_scoped_release release;
  (is_double ? found.backward_double : found.backward_float)(a, stream_of(cuda_stream));
  check_launch(kOps[op].name, sizes);
}

}  // namespace

void register_mixture(py::module_& m) {
  m.def("mixture_forward", &mixture_forward);
  m.def("mixture_backward", &mixture_backward);
}

}  // namespace bsl::cuda
