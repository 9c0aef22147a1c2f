// Like register_softmax.cpp. A call also has a CUDA stream. Log probabilities are not summed: there
// is one for each row.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "bindings/operands.h"
#include "cuda/softmax.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

void categorical_forward(bool is_double, int64_t rows, int64_t classes, uintptr_t logits,
                         uintptr_t index, uintptr_t log_prob, uintptr_t cuda_stream) {
  const CategoricalForward a{rows, classes, pointer(logits),
                             static_cast<const int64_t*>(pointer(index)), pointer(log_prob)};
  py::gil_scoped_release release;
  (is_double ? categorical_kernels.forward_double : categorical_kernels.forward_float)(
      a, stream_of(cuda_stream));
  check_launch("categorical_log_prob", {rows, classes});
}

void categorical_backward(bool is_double, const std::vector<int64_t>& sizes, int64_t classes,
                          uintptr_t logits, uintptr_t index, PyOperand grad, uintptr_t grad_logits,
                          uintptr_t cuda_stream) {
  CategoricalBackward a{};
  a.shape = make_shape(sizes, {&grad});
  a.classes = classes;
  a.logits = pointer(logits);
  a.index = static_cast<const int64_t*>(pointer(index));
  a.grad = grad.operand;
  a.grad_logits = pointer(grad_logits);
  py::gil_scoped_release release;
  (is_double ? categorical_kernels.backward_double : categorical_kernels.backward_float)(
      a, stream_of(cuda_stream));
  check_launch("categorical_log_prob", {a.shape.numel, classes});
}

void start(GumbelSoftmaxCall& a, int64_t rows, int64_t logit_rows, int64_t classes,
           uintptr_t logits, double temperature, uintptr_t seed, uint64_t stream) {
  a.rows = rows;
  a.logit_rows = logit_rows;
  a.classes = classes;
  a.logits = pointer(logits);
  a.temperature = temperature;
  a.seed = static_cast<const int64_t*>(pointer(seed));
  a.stream = stream;
}

void gumbel_softmax_forward(bool is_double, int64_t rows, int64_t logit_rows, int64_t classes,
                            uintptr_t logits, double temperature, uintptr_t seed, uint64_t stream,
                            bool hard, uintptr_t sample, uintptr_t cuda_stream) {
  GumbelSoftmaxForward a{};
  start(a, rows, logit_rows, classes, logits, temperature, seed, stream);
  a.hard = hard;
  a.sample = pointer(sample);
  py::gil_scoped_release release;
  (is_double ? gumbel_softmax_kernels.forward_double : gumbel_softmax_kernels.forward_float)(
      a, stream_of(cuda_stream));
  check_launch("gumbel_softmax_rsample", {rows, classes});
}

void gumbel_softmax_backward(bool is_double, int64_t rows, int64_t logit_rows, int64_t classes,
                             uintptr_t logits, double temperature, uintptr_t seed, uint64_t stream,
                             uintptr_t grad, uintptr_t grad_logits, uintptr_t cuda_stream) {
  GumbelSoftmaxBackward a{};
  start(a, rows, logit_rows, classes, logits, temperature, seed, stream);
  a.grad = pointer(grad);
  a.grad_logits = pointer(grad_logits);
  py::gil_scoped_release release;
  (is_double ? gumbel_softmax_kernels.backward_double : gumbel_softmax_kernels.backward_float)(
      a, stream_of(cuda_stream));
  check_launch("gumbel_softmax_rsample", {rows, classes});
}

void iwae_bound_forward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                        uintptr_t log_weights, uintptr_t bound, uintptr_t cuda_stream) {
  const IwaeBoundForward a{outer, samples, inner, pointer(log_weights), pointer(bound)};
  py::gil_scoped_release release;
  (is_double ? iwae_bound_kernels.forward_double : iwae_bound_kernels.forward_float)(
      a, stream_of(cuda_stream));
  check_launch("iwae_bound", {outer, samples, inner});
}

void iwae_bound_backward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                         uintptr_t log_weights, uintptr_t grad, bool squared,
                         uintptr_t grad_log_weights, uintptr_t cuda_stream) {
  const IwaeBoundBackward a{outer,
                            samples,
                            inner,
                            pointer(log_weights),
                            pointer(grad),
                            squared,
                            pointer(grad_log_weights)};
  py::gil_scoped_release release;
  (is_double ? iwae_bound_kernels.backward_double : iwae_bound_kernels.backward_float)(
      a, stream_of(cuda_stream));
  check_launch("iwae_bound", {outer, samples, inner});
}

}  // namespace

void register_softmax(py::module_& m) {
  m.def("categorical_forward", &categorical_forward);
  m.def("categorical_backward", &categorical_backward);
  m.def("gumbel_softmax_forward", &gumbel_softmax_forward);
  m.def("gumbel_softmax_backward", &gumbel_softmax_backward);
  m.def("iwae_bound_forward", &iwae_bound_forward);
  m.def("iwae_bound_backward", &iwae_bound_backward);
}

}  // namespace bsl::cuda
