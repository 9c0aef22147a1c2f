// normal_rsample_kl_many: samples and divergences tensor by tensor (cpu/normal_many.h).
#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/operands.h"
#include "bindings/tensors.h"
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

// The same call on tensors: first all locs, then all raw scales.
struct OfTensors {
  std::vector<int64_t> sizes;
  Addresses loc, raw_scale;
  std::vector<TensorView> views;
  // Whether all are contiguous numbers of one native dtype. Python sees to other calls.
  bool is_usual = true;

  explicit OfTensors(const py::tuple& tensors) {
    const size_t n = tensors.size() / 2;
    for (const py::handle tensor : tensors) views.push_back(view_of(tensor));
    for (size_t i = 0; i < views.size(); ++i) {
      const TensorView &view = views[i], &like = views[i % n];
      is_usual = is_usual && view.is_native && view.is_double == views[0].is_double &&
                 view.is_contiguous() && view.has_sizes(like.shape());
      (i < n ? loc : raw_scale).push_back(reinterpret_cast<uintptr_t>(view.data));
      if (i < n) sizes.push_back(view.numel());
    }
  }

  int dtype() const { return views[0].is_double ? 1 : 0; }
};

uintptr_t address_of(py::handle tensor) {
  return tensor.is_none() ? 0 : reinterpret_cast<uintptr_t>(view_of(tensor).data);
}

// The samples and, behind them, the sum of the divergences, which has a value only if `has_value`.
// None if the call is an unusual one, or has an invalid scale.
py::object normal_many_results(int parametrization, const py::tuple& tensors,
                               const std::vector<double>& prior_loc,
                               const std::vector<double>& prior_scale, py::handle seed,
                               uint64_t stream, bool has_value) {
  const OfTensors call(tensors);
  const size_t n = call.sizes.size();
  py::tuple found(n + 1);
  Addresses samples;
  if (!call.is_usual) return py::none();
  for (size_t i = 0; i < n; ++i) {
    const TensorView& view = call.views[i];
    found[i] = room_for(view.shape(), tensors[i]);
    samples.push_back(address_of(found[i]));
  }
  found[n] = room_for({}, tensors[0]);
  const uintptr_t kl = has_value ? address_of(found[n]) : 0;
  const int bad =
      normal_many_forward(call.dtype(), parametrization, call.sizes, call.loc, call.raw_scale,
                          prior_loc, prior_scale, address_of(seed), stream, samples, kl);
  if (bad >= 0) return py::none();
  return found;
}

// Writes the sum of the divergences, unless it returns false: then nothing has been written.
bool normal_many_kl(int parametrization, const py::tuple& tensors,
                    const std::vector<double>& prior_loc, const std::vector<double>& prior_scale,
                    py::handle kl) {
  const OfTensors call(tensors);
  if (!call.is_usual) return false;
  const Addresses none(call.sizes.size(), 0);
  return normal_many_forward(call.dtype(), parametrization, call.sizes, call.loc, call.raw_scale,
                             prior_loc, prior_scale, 0, 0, none, address_of(kl)) < 0;
}

// The gradients of all tensors from those of the results. None if the call is an unusual one.
py::object normal_many_gradients(int parametrization, const py::tuple& tensors,
                                 const std::vector<double>& prior_loc,
                                 const std::vector<double>& prior_scale, py::handle seed,
                                 uint64_t stream, const py::sequence& grad_samples,
                                 py::handle grad_kl, const py::sequence& needs) {
  const OfTensors call(tensors);
  const size_t n = call.sizes.size();
  if (!call.is_usual) return py::none();
  Addresses given;
  for (const py::handle grad : grad_samples) {
    if (!grad.is_none() && !view_of(grad).is_contiguous()) return py::none();
    given.push_back(address_of(grad));
  }
  py::tuple found(2 * n);
  Addresses made[2];
  for (size_t i = 0; i < 2 * n; ++i) {
    found[i] = py::none();
    if (needs[i].cast<bool>()) {
      // Without a divergence, the gradient of a loc is that of its sample.
      if (i < n && grad_kl.is_none() && given[i] != 0) {
        found[i] = grad_samples[i];
        made[0].push_back(0);
        continue;
      }
      const TensorView& view = call.views[i];
      found[i] = room_for(view.shape(), tensors[i]);
    }
    made[i / n].push_back(address_of(found[i]));
  }
  normal_many_backward(call.dtype(), parametrization, call.sizes, call.loc, call.raw_scale,
                       prior_loc, prior_scale, address_of(seed), stream, given, address_of(grad_kl),
                       made[0], made[1]);
  return found;
}

}  // namespace

void register_normal_many(py::module_& m) {
  m.def("normal_many_results", &normal_many_results);
  m.def("normal_many_kl", &normal_many_kl);
  m.def("normal_many_gradients", &normal_many_gradients);
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
}

}  // namespace bsl
