#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/operands.h"
#include "cpu/memory.h"
#include "cpu/normal.h"

namespace py = pybind11;

namespace bsl {
namespace {

// Returns whether all scales are valid.
bool normal_forward(int dtype_code, const std::vector<int64_t>& sizes, PyOperand loc,
                    PyOperand raw_scale, PyOperand prior_loc, PyOperand prior_scale,
                    int parametrization, uintptr_t seed, uint64_t stream, int64_t n_samples,
                    uintptr_t sample, int reduction, uintptr_t kl) {
  const DType dtype(dtype_code);
  int bad_scale = 0;
  NormalForward a{};
  a.storage = dtype.storage;
  a.shape = make_shape(sizes, {&loc, &raw_scale, &prior_loc, &prior_scale}, dtype.storage);
  a.loc = loc.operand;
  a.raw_scale = raw_scale.operand;
  a.prior_loc = prior_loc.operand;
  a.prior_scale = prior_scale.operand;
  a.parametrization = static_cast<Parametrization>(parametrization);
  a.seed = read_seed(seed);
  a.stream = stream;
  a.n_samples = n_samples;
  a.sample = pointer(sample);
  a.reduction = static_cast<Reduction>(reduction);
  a.kl = pointer(kl);
  a.bad_scale = &bad_scale;
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  {
    py::gil_scoped_release release;
    expect_writes(a.sample, n_samples * a.shape.numel * dtype.size);
    (dtype.is_double ? BSL_SELECT(normal_kernels).forward_double
                     : BSL_SELECT(normal_kernels).forward_float)(a);
  }
  return bad_scale == 0;
}

void normal_backward(int dtype_code, const std::vector<int64_t>& sizes, PyOperand loc,
                     PyOperand raw_scale, PyOperand prior_loc, PyOperand prior_scale,
                     int parametrization, uintptr_t seed, uint64_t stream, int64_t n_samples,
                     PyOperand grad_sample, PyOperand grad_kl, int64_t grad_loc,
                     int64_t grad_raw_scale, int64_t grad_prior_loc, int64_t grad_prior_scale) {
  const DType dtype(dtype_code);
  NormalBackward a{};
  a.shape =
      make_shape(sizes, {&loc, &raw_scale, &prior_loc, &prior_scale, &grad_kl}, dtype.storage);
  // A single sample's gradient has the parameters' shape.
  std::vector<int64_t> sample_sizes(sizes);
  if (n_samples > 1) sample_sizes.insert(sample_sizes.begin(), n_samples);
  a.sample_shape = make_shape(sample_sizes, {&grad_sample}, dtype.storage);
  a.loc = loc.operand;
  a.raw_scale = raw_scale.operand;
  a.prior_loc = prior_loc.operand;
  a.prior_scale = prior_scale.operand;
  a.parametrization = static_cast<Parametrization>(parametrization);
  a.seed = read_seed(seed);
  a.stream = stream;
  a.n_samples = n_samples;
  a.grad_sample = grad_sample.operand;
  a.grad_kl = grad_kl.operand;
  a.grad_loc = make_grad(grad_loc, dtype);
  a.grad_raw_scale = make_grad(grad_raw_scale, dtype);
  a.grad_prior_loc = make_grad(grad_prior_loc, dtype);
  a.grad_prior_scale = make_grad(grad_prior_scale, dtype);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none);
  py::gil_scoped_release release;
  for (const Grad& grad : {a.grad_loc, a.grad_raw_scale, a.grad_prior_loc, a.grad_prior_scale}) {
    expect_writes(grad.data, a.shape.numel * dtype.size);
  }
  (dtype.is_double ? BSL_SELECT(normal_kernels).backward_double
                   : BSL_SELECT(normal_kernels).backward_float)(a);
}

}  // namespace

void register_normal(py::module_& m) {
  m.def("normal_forward", &normal_forward);
  m.def("normal_backward", &normal_backward);
}

}  // namespace bsl
