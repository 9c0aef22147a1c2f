// normal_rsample_kl_many: samples and divergences as of normal_rsample_kl, tensor by tensor, or the
// part of them that is wanted. Tensors are contiguous. Parameters of priors are numbers.
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <vector>

#include "bindings/operands.h"
#include "cpu/memory.h"
#include "cpu/pointwise.h"

namespace py = pybind11;

namespace bsl {
namespace {

using Addresses = std::vector<uintptr_t>;

Operand contiguous(uintptr_t address, Storage storage) {
  Operand operand;
  operand.kind = address == 0 ? Operand::Kind::absent : Operand::Kind::contiguous;
  operand.storage = storage;
  operand.data = pointer(address);
  return operand;
}

// A divergence or its gradient. A call on 16-bit tensors stores it as float.
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

// The kernels for the sample, the divergence, or both. At least one of the two is wanted.
const PointwiseVariant& kernels_of(bool sample, bool kl, int parametrization) {
  const PointwiseKernels& kernels = !kl       ? BSL_SELECT(normal_rsample_kernels)
                                    : !sample ? BSL_SELECT(normal_kl_fixed_prior_kernels)
                                              : BSL_SELECT(normal_rsample_kl_fixed_prior_kernels);
  return kernels.variants[parametrization];
}

// What all tensors of a call have in common.
struct Many {
  DType dtype;
  int parametrization;
  const std::vector<int64_t>& sizes;
  const Addresses &loc, &raw_scale;
  const std::vector<double>&prior_loc, &prior_scale;
  uint64_t seed, stream;

  // Fills in the arguments that forward and backward of tensor i share.
  template <typename Call>
  void start(Call& a, size_t i) const {
    a.shape = make_shape({sizes[i]}, {});
    a.n_samples = 1;
    a.inputs[0] = contiguous(loc.at(i), dtype.storage);
    a.inputs[1] = contiguous(raw_scale.at(i), dtype.storage);
    a.numbers[0] = prior_loc.at(i);
    a.numbers[1] = prior_scale.at(i);
    a.seed = seed;
    a.stream = stream + i;
  }
};

// Returns the index of a tensor with an invalid scale, or -1. The sum of all divergences goes to
// `kl`. An address of 0, of `kl` or of a sample, is an unwanted result.
int normal_many_forward(int dtype, int parametrization, const std::vector<int64_t>& sizes,
                        const Addresses& loc, const Addresses& raw_scale,
                        const std::vector<double>& prior_loc,
                        const std::vector<double>& prior_scale, uintptr_t seed, uint64_t stream,
                        const Addresses& sample, uintptr_t kl) {
  const Many many{DType(dtype), parametrization, sizes,           loc,   raw_scale,
                  prior_loc,    prior_scale,     read_seed(seed), stream};
  double total = 0;
  py::gil_scoped_release release;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 || (kl == 0 && sample.at(i) == 0)) continue;
    int invalid = 0;
    PointwiseForward a{};
    many.start(a, i);
    a.storage = many.dtype.storage;
    a.reduction = kl == 0 ? Reduction::none : Reduction::sum;
    a.value = pointer(sample.at(i));
    a.log = pointer(kl);
    a.invalid = &invalid;
    a.plan = ChunkPlan(sizes[i], sizes[i], a.reduction);
    const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
    a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
    expect_writes(a.value, sizes[i] * many.dtype.size);
    const PointwiseVariant& kernels = kernels_of(a.value != nullptr, kl != 0, parametrization);
    (many.dtype.is_double ? kernels.forward_double : kernels.forward_float)(a);
    if (invalid != 0) return static_cast<int>(i);
    if (kl != 0) total += read_number(a.log, many.dtype);
  }
  if (kl != 0) write_number(total, pointer(kl), many.dtype);
  return -1;
}

// The gradients that arrive are those of the samples and of the sum. 0 is a gradient that does not.
void normal_many_backward(int dtype, int parametrization, const std::vector<int64_t>& sizes,
                          const Addresses& loc, const Addresses& raw_scale,
                          const std::vector<double>& prior_loc,
                          const std::vector<double>& prior_scale, uintptr_t seed, uint64_t stream,
                          const Addresses& grad_sample, uintptr_t grad_kl,
                          const Addresses& grad_loc, const Addresses& grad_raw_scale) {
  const Many many{DType(dtype), parametrization, sizes,           loc,   raw_scale,
                  prior_loc,    prior_scale,     read_seed(seed), stream};
  py::gil_scoped_release release;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 || (grad_loc.at(i) == 0 && grad_raw_scale.at(i) == 0)) continue;
    PointwiseBackward a{};
    many.start(a, i);
    a.value_shape = a.shape;
    a.grad_value = contiguous(grad_sample.at(i), many.dtype.storage);
    if (grad_kl != 0) {
      a.grad_log.kind = Operand::Kind::constant;
      a.grad_log.value = read_number(pointer(grad_kl), many.dtype);
    }
    a.grads[0] = {pointer(grad_loc.at(i)), many.dtype.storage};
    a.grads[1] = {pointer(grad_raw_scale.at(i)), many.dtype.storage};
    a.plan = ChunkPlan(sizes[i], 1, Reduction::none);
    for (const Grad& grad : a.grads) expect_writes(grad.data, sizes[i] * many.dtype.size);
    if (!a.grad_value && grad_kl == 0) {
      for (const Grad& grad : a.grads) {
        if (grad.data != nullptr) std::memset(grad.data, 0, sizes[i] * many.dtype.size);
      }
      continue;
    }
    const PointwiseVariant& kernels = kernels_of(bool(a.grad_value), grad_kl != 0, parametrization);
    (many.dtype.is_double ? kernels.backward_double : kernels.backward_float)(a);
  }
}

}  // namespace

void register_normal_many(py::module_& m) {
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
}

}  // namespace bsl
