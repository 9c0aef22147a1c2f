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
  a.grad_kl.storage = Storage::native;
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

// Many tensors, each contiguous, with numbers for priors: normal_rsample_kl for one after the
// other.
using Addresses = std::vector<uintptr_t>;

PyOperand contiguous(uintptr_t address) {
  PyOperand operand;
  operand.operand.kind = address == 0 ? Operand::Kind::absent : Operand::Kind::contiguous;
  operand.operand.data = pointer(address);
  return operand;
}

PyOperand constant(double value) {
  PyOperand operand;
  operand.operand.kind = Operand::Kind::constant;
  operand.operand.value = value;
  return operand;
}

// A divergence, or its gradient: stored as float in a call on 16-bit tensors.
double read_number(const void* data, const DType& dtype) {
  return dtype.is_double ? *static_cast<const double*>(data) : *static_cast<const float*>(data);
}

void write_number(double value, void* data, const DType& dtype) {
  if (dtype.is_double) {
    *static_cast<double*>(data) = value;
  } else {
    *static_cast<float*>(data) = static_cast<float>(value);
  }
}

// Returns which tensor has a scale that is not valid, or -1. `kl` is where the sum of all
// divergences goes. 0, for it or for a sample: not wanted.
int normal_many_forward(int dtype, int parametrization, const std::vector<int64_t>& sizes,
                        const Addresses& loc, const Addresses& raw_scale,
                        const std::vector<double>& prior_loc,
                        const std::vector<double>& prior_scale, uintptr_t seed, uint64_t stream,
                        const Addresses& sample, uintptr_t kl) {
  double total = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) continue;
    if (!normal_forward(dtype, {sizes[i]}, contiguous(loc.at(i)), contiguous(raw_scale.at(i)),
                        constant(prior_loc.at(i)), constant(prior_scale.at(i)), parametrization,
                        seed, stream + i, 1, sample.at(i), static_cast<int>(Reduction::sum), kl)) {
      return static_cast<int>(i);
    }
    if (kl != 0) total += read_number(pointer(kl), DType(dtype));
  }
  if (kl != 0) write_number(total, pointer(kl), DType(dtype));
  return -1;
}

// Gradients are those of samples (0: none arrives there) and of the sum, or None.
void normal_many_backward(int dtype, int parametrization, const std::vector<int64_t>& sizes,
                          const Addresses& loc, const Addresses& raw_scale,
                          const std::vector<double>& prior_loc,
                          const std::vector<double>& prior_scale, uintptr_t seed, uint64_t stream,
                          const Addresses& grad_sample, uintptr_t grad_kl,
                          const std::vector<int64_t>& grad_loc,
                          const std::vector<int64_t>& grad_raw_scale) {
  PyOperand by_kl;
  if (grad_kl != 0) by_kl = constant(read_number(pointer(grad_kl), DType(dtype)));
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 || (grad_loc.at(i) == 0 && grad_raw_scale.at(i) == 0)) continue;
    normal_backward(dtype, {sizes[i]}, contiguous(loc.at(i)), contiguous(raw_scale.at(i)),
                    constant(prior_loc.at(i)), constant(prior_scale.at(i)), parametrization, seed,
                    stream + i, 1, contiguous(grad_sample.at(i)), by_kl, grad_loc.at(i),
                    grad_raw_scale.at(i), 0, 0);
  }
}

}  // namespace

void register_normal(py::module_& m) {
  m.def("normal_forward", &normal_forward);
  m.def("normal_backward", &normal_backward);
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
}

}  // namespace bsl
