// The softmaxes: categorical_log_prob, gumbel_softmax_rsample and iwae_bound.
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "cpu/categorical.h"
#include "cpu/gumbel_softmax.h"
#include "cpu/iwae_bound.h"

namespace py = pybind11;

namespace bsl {
namespace {

// Returns whether all indices are classes.
bool categorical_forward(bool is_double, int64_t rows, int64_t classes, uintptr_t logits,
                         uintptr_t index, int reduction, uintptr_t log_prob) {
  int bad_index = 0;
  CategoricalForward a{};
  a.classes = classes;
  a.logits = pointer(logits);
  a.index = static_cast<const int64_t*>(pointer(index));
  a.reduction = static_cast<Reduction>(reduction);
  a.log_prob = pointer(log_prob);
  a.bad_index = &bad_index;
  a.plan = plan_rows(rows, classes, a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  {
    py::gil_scoped_release release;
    (is_double ? BSL_SELECT(categorical_kernels).forward_double
               : BSL_SELECT(categorical_kernels).forward_float)(a);
  }
  return bad_index == 0;
}

void categorical_backward(bool is_double, const std::vector<int64_t>& sizes, int64_t classes,
                          uintptr_t logits, uintptr_t index, PyOperand grad,
                          uintptr_t grad_logits) {
  CategoricalBackward a{};
  a.shape = make_shape(sizes, {&grad});
  a.classes = classes;
  a.logits = pointer(logits);
  a.index = static_cast<const int64_t*>(pointer(index));
  a.grad = grad.operand;
  a.grad_logits = pointer(grad_logits);
  a.plan = plan_rows(a.shape.numel, classes, Reduction::none);
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(categorical_kernels).backward_double
             : BSL_SELECT(categorical_kernels).backward_float)(a);
}

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

void iwae_bound_forward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                        uintptr_t log_weights, uintptr_t bound) {
  const IwaeBoundForward a{outer, samples, inner, pointer(log_weights), pointer(bound)};
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(iwae_bound_kernels).forward_double
             : BSL_SELECT(iwae_bound_kernels).forward_float)(a);
}

void iwae_bound_backward(bool is_double, int64_t outer, int64_t samples, int64_t inner,
                         uintptr_t log_weights, uintptr_t grad, bool squared,
                         uintptr_t grad_log_weights) {
  const IwaeBoundBackward a{outer,
                            samples,
                            inner,
                            pointer(log_weights),
                            pointer(grad),
                            squared,
                            pointer(grad_log_weights)};
  py::gil_scoped_release release;
  (is_double ? BSL_SELECT(iwae_bound_kernels).backward_double
             : BSL_SELECT(iwae_bound_kernels).backward_float)(a);
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

}  // namespace bsl
