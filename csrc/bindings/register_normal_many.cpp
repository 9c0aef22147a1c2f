// normal_rsample_kl_many: samples and divergences tensor by tensor (cpu/normal_many.h).
#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/operands.h"
#include "cpu/normal_many.h"

namespace py = pybind11;

namespace bsl {
namespace {

using Addresses = std::vector<uintptr_t>;

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

// What all tensors of a call have in common.
struct Many {
  DType dtype;
  int parametrization;
  const std::vector<int64_t>& sizes;
  const Addresses &loc, &raw_scale;
  const std::vector<double>&prior_loc, &prior_scale;
  uint64_t seed, stream;

  NormalTensor tensor(size_t i) const {
    return {
        dtype.is_double,          dtype.storage,   parametrization,   sizes[i], pointer(loc.at(i)),
        pointer(raw_scale.at(i)), prior_loc.at(i), prior_scale.at(i), seed,     stream + i};
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
    if (!draw_normal(many.tensor(i), 1, pointer(sample.at(i)), kl == 0 ? nullptr : &total)) {
      return static_cast<int>(i);
    }
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
  const double by_kl = grad_kl == 0 ? 0.0 : read_number(pointer(grad_kl), many.dtype);
  py::gil_scoped_release release;
  for (size_t i = 0; i < sizes.size(); ++i) {
    pull_back_normal(many.tensor(i), pointer(grad_sample.at(i)), grad_kl == 0 ? nullptr : &by_kl,
                     pointer(grad_loc.at(i)), pointer(grad_raw_scale.at(i)));
  }
}

}  // namespace

void register_normal_many(py::module_& m) {
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
}

}  // namespace bsl
