// normal_rsample_kl_many: samples and divergences of many tensors, on the CPU tensor by tensor, on
// CUDA devices a table of tensors for each launch.
#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/from_tuple.h"
#include "bindings/operands.h"
#include "bindings/tensors.h"
#include "device.h"       // of cpu/ or of cuda/
#include "normal_many.h"  // of cpu/ or of cuda/

namespace py = pybind11;

namespace bsl {
namespace {

using Addresses = std::vector<uintptr_t>;

// A call on contiguous tensors, of which each has an entry in all lists.
struct NormalManyCall : FromTuple {
  int dtype, parametrization;
  std::vector<int64_t> sizes;
  Addresses loc, raw_scale;
  std::vector<double> prior_loc, prior_scale;
  uintptr_t seed;
  uint64_t stream;

  template <typename F>
  void each_member(const F& f) {
    f(dtype, parametrization, sizes, loc, raw_scale, prior_loc, prior_scale, seed, stream);
  }
};

#ifndef BSL_CUDA
// --- On the CPU ---

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

NormalTensor tensor_of(const NormalManyCall& call, const DType& dtype, size_t i) {
  return {dtype.is_double,      dtype.storage,           call.parametrization,
          call.sizes[i],        pointer(call.loc.at(i)), pointer(call.raw_scale.at(i)),
          call.prior_loc.at(i), call.prior_scale.at(i),  read_seed(call.seed),
          call.stream + i};
}

// Returns the index of a tensor with an invalid scale, or -1. The sum of all divergences goes to
// `kl`. An address of 0, of `kl` or of a sample, is an unwanted result.
int normal_many_forward(const NormalManyCall& call, const Addresses& sample, uintptr_t kl) {
  const DType dtype(call.dtype);
  double total = 0;
  py::gil_scoped_release release;
  for (size_t i = 0; i < call.sizes.size(); ++i) {
    const NormalTensor tensor = tensor_of(call, dtype, i);
    if (!draw_normal(tensor, 1, pointer(sample.at(i)), kl == 0 ? nullptr : &total)) {
      return static_cast<int>(i);
    }
  }
  if (kl != 0) write_number(total, pointer(kl), dtype);
  return -1;
}

// The gradients that arrive are those of the samples and of the sum. 0 is a gradient that does not.
void normal_many_backward(const NormalManyCall& call, const Addresses& grad_sample,
                          uintptr_t grad_kl, const Addresses& grad_loc,
                          const Addresses& grad_raw_scale) {
  const DType dtype(call.dtype);
  const double by_kl = grad_kl == 0 ? 0.0 : read_number(pointer(grad_kl), dtype);
  py::gil_scoped_release release;
  for (size_t i = 0; i < call.sizes.size(); ++i) {
    pull_back_normal(tensor_of(call, dtype, i), pointer(grad_sample.at(i)),
                     grad_kl == 0 ? nullptr : &by_kl, pointer(grad_loc.at(i)),
                     pointer(grad_raw_scale.at(i)));
  }
}

uintptr_t address_of(py::handle tensor) {
  return tensor.is_none() ? 0 : reinterpret_cast<uintptr_t>(view_of(tensor).data);
}

// A call on tensors. It arrives as (parametrization, all locs and then all raw scales, prior_loc,
// prior_scale, seed, stream).
struct CallOnTensors : NormalManyCall {
  py::tuple tensors;
  std::vector<TensorView> views;
  // Whether all are contiguous numbers of one native dtype. Python sees to other calls.
  bool is_usual = true;

  explicit CallOnTensors(const py::tuple& call) : tensors(call[1]) {
    const size_t n = tensors.size() / 2;
    for (const py::handle tensor : tensors) views.push_back(view_of(tensor));
    for (size_t i = 0; i < views.size(); ++i) {
      const TensorView &view = views[i], &like = views[i % n];
      is_usual = is_usual && view.is_native && view.is_double == views[0].is_double &&
                 view.is_contiguous() && view.has_sizes(like.shape());
      (i < n ? loc : raw_scale).push_back(reinterpret_cast<uintptr_t>(view.data));
      if (i < n) sizes.push_back(view.numel());
    }
    dtype = views[0].is_double ? 1 : 0;
    parametrization = call[0].cast<int>();
    prior_loc = call[2].cast<std::vector<double>>();
    prior_scale = call[3].cast<std::vector<double>>();
    seed = address_of(call[4]);
    stream = call[5].cast<uint64_t>();
  }
};

// The samples and, behind them, the sum of the divergences, which has a value only if `has_value`.
// None if the call is an unusual one, or has an invalid scale.
py::object normal_many_results(const py::tuple& given, bool has_value) {
  const CallOnTensors call(given);
  const size_t n = call.sizes.size();
  py::tuple found(n + 1);
  Addresses samples;
  if (!call.is_usual) return py::none();
  for (size_t i = 0; i < n; ++i) {
    found[i] = room_for(call.views[i].shape(), call.tensors[i]);
    samples.push_back(address_of(found[i]));
  }
  found[n] = room_for({}, call.tensors[0]);
  const uintptr_t kl = has_value ? address_of(found[n]) : 0;
  if (normal_many_forward(call, samples, kl) >= 0) return py::none();
  return found;
}

// Writes the sum of the divergences, unless it returns false: then nothing has been written.
bool normal_many_kl(const py::tuple& given, py::handle kl) {
  const CallOnTensors call(given);
  if (!call.is_usual) return false;
  return normal_many_forward(call, Addresses(call.sizes.size(), 0), address_of(kl)) < 0;
}

// The gradients of all tensors from those of the results. None if the call is an unusual one.
py::object normal_many_gradients(const py::tuple& given, const py::sequence& grad_samples,
                                 py::handle grad_kl, const py::sequence& needs) {
  const CallOnTensors call(given);
  const size_t n = call.sizes.size();
  if (!call.is_usual) return py::none();
  Addresses by_samples;
  for (const py::handle grad : grad_samples) {
    if (!grad.is_none() && !view_of(grad).is_contiguous()) return py::none();
    by_samples.push_back(address_of(grad));
  }
  py::tuple found(2 * n);
  Addresses made[2];
  for (size_t i = 0; i < 2 * n; ++i) {
    found[i] = py::none();
    if (needs[i].cast<bool>()) {
      // Without a divergence, the gradient of a loc is that of its sample.
      if (i < n && grad_kl.is_none() && by_samples[i] != 0) {
        found[i] = grad_samples[i];
        made[0].push_back(0);
        continue;
      }
      found[i] = room_for(call.views[i].shape(), call.tensors[i]);
    }
    made[i / n].push_back(address_of(found[i]));
  }
  normal_many_backward(call, by_samples, address_of(grad_kl), made[0], made[1]);
  return found;
}

#else
// --- On CUDA devices ---

constexpr char kName[] = "normal_rsample_kl_many";

int64_t pieces_of(int64_t numel) { return (numel + kNormalPiece - 1) / kNormalPiece; }

// Numbers of type double that normal_many_forward needs at `partials`.
int64_t normal_many_partials(const std::vector<int64_t>& sizes) {
  int64_t pieces = 0;
  for (const int64_t numel : sizes) pieces += pieces_of(numel);
  return pieces;
}

// Calls launch(call) for as many tensors at a time as a table holds. `sample` has the addresses of
// the samples, or of their gradients.
template <typename F>
void for_each_table(const NormalManyCall& call, const Addresses& sample, const F& launch) {
  for (size_t first = 0; first < call.sizes.size(); first += kMostTensors) {
    NormalMany a{};
    a.seed = static_cast<const int64_t*>(pointer(call.seed));
    a.stream = call.stream + first;
    for (size_t i = first; i < call.sizes.size() && a.n < kMostTensors; ++i) {
      NormalTensor& tensor = a.tensors[a.n++];
      tensor.loc = pointer(call.loc.at(i));
      tensor.raw_scale = pointer(call.raw_scale.at(i));
      tensor.sample = pointer(sample.at(i));
      tensor.prior_loc = call.prior_loc.at(i);
      tensor.prior_scale = call.prior_scale.at(i);
      tensor.numel = call.sizes[i];
      tensor.first_piece = a.pieces;
      a.pieces += pieces_of(call.sizes[i]);
    }
    if (a.pieces > 0) launch(a, first);
  }
}

// An address of 0, of `kl` or of a sample, is an unwanted result.
void normal_many_forward(const Device& device, const NormalManyCall& call, const Addresses& sample,
                         uintptr_t partials, uintptr_t kl) {
  const auto forward = cuda::normal_many_kernels[call.parametrization].forward[call.dtype];
  py::gil_scoped_release release;
  NormalTotal total{static_cast<double*>(pointer(partials)), 0, pointer(kl)};
  for_each_table(call, sample, [&](NormalMany& a, size_t) {
    a.partials = static_cast<double*>(pointer(partials)) + total.pieces;
    total.pieces += a.pieces;
    device.run(forward, a, kName, call.sizes);
  });
  if (total.kl == nullptr) return;
  device.run(cuda::normal_many_total[call.dtype], total, kName, call.sizes);
}

void normal_many_backward(const Device& device, const NormalManyCall& call,
                          const Addresses& grad_sample, uintptr_t grad_kl,
                          const Addresses& grad_loc, const Addresses& grad_raw_scale) {
  const auto backward = cuda::normal_many_kernels[call.parametrization].backward[call.dtype];
  py::gil_scoped_release release;
  for_each_table(call, grad_sample, [&](NormalMany& a, size_t first) {
    a.grad_kl = pointer(grad_kl);
    for (int i = 0; i < a.n; ++i) {
      a.tensors[i].grad_loc = pointer(grad_loc.at(first + i));
      a.tensors[i].grad_raw_scale = pointer(grad_raw_scale.at(first + i));
    }
    device.run(backward, a, kName, call.sizes);
  });
}

#endif
}  // namespace

void register_normal_many(py::module_& m) {
#ifndef BSL_CUDA
  m.def("normal_many_results", &normal_many_results);
  m.def("normal_many_kl", &normal_many_kl);
  m.def("normal_many_gradients", &normal_many_gradients);
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
#else
  m.def("normal_many_partials", &normal_many_partials);
  m.def("normal_many_forward", on_device(&normal_many_forward));
  m.def("normal_many_backward", on_device(&normal_many_backward));
#endif
}

}  // namespace bsl
