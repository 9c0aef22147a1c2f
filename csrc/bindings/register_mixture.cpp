#include <pybind11/pybind11.h>

#include <array>
#include <memory>

#include "bindings/operands.h"
#include "cpu/mixture.h"

namespace py = pybind11;

namespace bsl {
namespace {

using Constants = std::array<double, kMaxNumbers>;

// In the order of OPS in bslfast/_native/mixture.py.
const MixtureKernels& kernels(int op) {
  switch (op) {
    case 0:
      return BSL_SELECT(mixture_logistic_kernels);
    case 1:
      return BSL_SELECT(mixture_logistic_inverse_kernels);
    case 2:
      return BSL_SELECT(discretized_logistic_mixture_kernels);
    case 3:
      return BSL_SELECT(deep_sigmoidal_kernels);
    case 4:
      return BSL_SELECT(deep_sigmoidal_inverse_kernels);
    case 5:
      return BSL_SELECT(bernstein_kernels);
    case 6:
      return BSL_SELECT(bernstein_inverse_kernels);
  }
  throw std::invalid_argument("number of an op");
}

void describe_mixture(MixtureCall& a, const PyOperand& x, const PyOperand& logits,
                      const PyOperand& loc, const PyOperand& log_scale, int components,
                      const Constants& numbers) {
  if (components < 1 || components > kMaxComponents) {
    throw std::invalid_argument("number of components");
  }
  a.x = x.operand;
  a.logits = logits.operand;
  a.loc = loc.operand;
  a.log_scale = log_scale.operand;
  a.components = components;
  for (int i = 0; i < kMaxNumbers; ++i) a.numbers[i] = numbers[i];
}

void mixture_forward(int op, bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                     PyOperand logits, PyOperand loc, PyOperand log_scale, int components,
                     const Constants& numbers, uintptr_t y, int reduction, uintptr_t log) {
  MixtureForward a{};
  a.shape = make_shape(sizes, {&x, &logits, &loc, &log_scale});
  describe_mixture(a, x, logits, loc, log_scale, components, numbers);
  a.y = pointer(y);
  a.reduction = static_cast<Reduction>(reduction);
  a.log = pointer(log);
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction, kMixtureChunk);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  const MixtureKernels& found = kernels(op);
  py::gil_scoped_release release;
  (is_double ? found.forward_double : found.forward_float)(a);
}

void mixture_backward(int op, bool is_double, const std::vector<int64_t>& sizes, PyOperand x,
                      PyOperand logits, PyOperand loc, PyOperand log_scale, int components,
                      const Constants& numbers, PyOperand grad_y, PyOperand grad_log,
                      uintptr_t grad_x, uintptr_t grad_logits, uintptr_t grad_loc,
                      uintptr_t grad_log_scale) {
  MixtureBackward a{};
  a.shape = make_shape(sizes, {&x, &logits, &loc, &log_scale, &grad_y, &grad_log});
  describe_mixture(a, x, logits, loc, log_scale, components, numbers);
  a.grad_y = grad_y.operand;
  a.grad_log = grad_log.operand;
  a.grad_x = pointer(grad_x);
  a.grad_logits = pointer(grad_logits);
  a.grad_loc = pointer(grad_loc);
  a.grad_log_scale = pointer(grad_log_scale);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none, kMixtureChunk);
  const MixtureKernels& found = kernels(op);
  py::gil_scoped_release release;
  (is_double ? found.backward_double : found.backward_float)(a);
}

}  // namespace

void register_mixture(py::module_& m) {
  m.attr("MAX_COMPONENTS") = kMaxComponents;
  m.def("mixture_forward", &mixture_forward);
  m.def("mixture_backward", &mixture_backward);
}

}  // namespace bsl
