// Like register_softmax.cpp. A call also has a CUDA stream. Numbers are not summed: there is one
// for each row.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "bindings/softmax_call.h"
#include "cuda/softmax.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

struct Entry {
  const char* name;
  const SoftmaxKernels& (*kernels)();
};

#define BSL_ENTRY(name) {#name, []() -> const SoftmaxKernels& { return name##_kernels; }},
constexpr Entry kOps[] = {BSL_SOFTMAX_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

void softmax_forward(const PySoftmaxCall& call, uintptr_t result, uintptr_t cuda_stream) {
  SoftmaxForward a{};
  start_softmax(a, call, {});
  a.result = pointer(result);
  const Entry& op = kOps[call.op];
  const SoftmaxKernels& kernels = op.kernels();
  py::gil_scoped_release release;
  (call.is_double ? kernels.forward_double : kernels.forward_float)(a, stream_of(cuda_stream));
  check_launch(op.name, {a.shape.numel, a.columns});
}

void softmax_backward(const PySoftmaxCall& call, PyOperand grad, uintptr_t grad_x,
                      uintptr_t cuda_stream) {
  SoftmaxBackward a{};
  start_softmax(a, call, {&grad});
  a.grad = grad.operand;
  a.grad_x = pointer(grad_x);
  const Entry& op = kOps[call.op];
  const SoftmaxKernels& kernels = op.kernels();
  py::gil_scoped_release release;
  (call.is_double ? kernels.backward_double : kernels.backward_float)(a, stream_of(cuda_stream));
  check_launch(op.name, {a.shape.numel, a.columns});
}

}  // namespace

void register_softmax(py::module_& m) {
  m.def("softmax_ops", []() { return describe_softmaxes(kOps); });
  m.def("softmax_forward", &softmax_forward);
  m.def("softmax_backward", &softmax_backward);
}

}  // namespace bsl::cuda
