// normal_rsample_kl_many: a table of tensors for each launch.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "bindings/normal_many_call.h"
#include "cuda/normal_many.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

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
void normal_many_forward(const NormalManyCall& call, const Addresses& sample, uintptr_t partials,
                         uintptr_t kl, uintptr_t cuda_stream) {
  const auto forward = normal_many_kernels[call.parametrization].forward[call.dtype];
  py::gil_scoped_release release;
  NormalTotal total{static_cast<double*>(pointer(partials)), 0, pointer(kl)};
  for_each_table(call, sample, [&](NormalMany& a, size_t) {
    a.partials = static_cast<double*>(pointer(partials)) + total.pieces;
    total.pieces += a.pieces;
    forward(a, stream_of(cuda_stream));
    check_launch(kName, call.sizes);
  });
  if (total.kl == nullptr) return;
  normal_many_total[call.dtype](total, stream_of(cuda_stream));
  check_launch(kName, call.sizes);
}

void normal_many_backward(const NormalManyCall& call, const Addresses& grad_sample,
                          uintptr_t grad_kl, const Addresses& grad_loc,
                          const Addresses& grad_raw_scale, uintptr_t cuda_stream) {
  const auto backward = normal_many_kernels[call.parametrization].backward[call.dtype];
  py::gil_scoped_release release;
  for_each_table(call, grad_sample, [&](NormalMany& a, size_t first) {
    a.grad_kl = pointer(grad_kl);
    for (int i = 0; i < a.n; ++i) {
      a.tensors[i].grad_loc = pointer(grad_loc.at(first + i));
      a.tensors[i].grad_raw_scale = pointer(grad_raw_scale.at(first + i));
    }
    backward(a, stream_of(cuda_stream));
    check_launch(kName, call.sizes);
  });
}

}  // namespace

void register_normal_many(py::module_& m) {
  m.def("normal_many_partials", &normal_many_partials);
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
}

}  // namespace bsl::cuda
