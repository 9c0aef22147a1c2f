#include <pybind11/pybind11.h>

#include "bindings/operands.h"
#include "cpu/gumbel_softmax.h"

namespace py = pybind11;

namespace bsl {
namespace {

template <typename Call>
void start(Call& a, int64_t rows, int64_t logit_rows, int64_t classes, uintptr_t logits,
           double temperature, uintptr_t seed, uint64_t stream) {
  a.plan = plan_rows(rows, classes, Reduction::none);
  a.logit_rows = logit_rows;
  a.classes = classes;
  a.logits = pointer(logits);
  a.temperature = temperature;
  a.seed = read_seed(seed);
  a.stream = stream;
}

void gumbel_softmax_forward(bool is_double, int64_t rows, int64_t logit_rows, int64_t classes,
                            uintptr_t logits, double temperature, uintptr_t seed, uint64_t stream,
                            bool hard, uintptr_t sample) {
  GumbelSoftmaxForward a{};
  start(a, rows, logit_rows, classes, logits, temperature, seed, stream);
  a.hard = hard;
  a.sample = pointer(sample);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(gumbel_softmax_kernels).forward_double
             : BSL_SELECT(gumbel_softmax_kernels).forward_float)(a);
}

void gumbel_softmax_backward(bool is_double, int64_t rows, int64_t logit_rows, int64_t classes,
                             uintptr_t logits, double temperature, uintptr_t seed, uint64_t stream,
                             uintptr_t grad, uintptr_t grad_logits) {
  GumbelSoftmaxBackward a{};
  start(a, rows, logit_rows, classes, logits, temperature, seed, stream);
  a.grad = pointer(grad);
  a.grad_logits = pointer(grad_logits);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(gumbel_softmax_kernels).backward_double
             : BSL_SELECT(gumbel_softmax_kernels).backward_float)(a);
}

}  // namespace

void register_gumbel_softmax(py::module_& m) {
  m.def("gumbel_softmax_forward", &gumbel_softmax_forward);
  m.def("gumbel_softmax_backward", &gumbel_softmax_backward);
}

}  // namespace bsl
