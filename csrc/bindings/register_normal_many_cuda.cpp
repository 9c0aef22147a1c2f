// normal_rsample_kl_many: a table of tensors for each launch.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "bindings/operands.h"
#include "cuda/normal_many.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

using Addresses = std::vector<uintptr_t>;
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
void for_each_table(const std::vector<int64_t>& sizes, const Addresses& loc,
                    const Addresses& raw_scale, const Addresses& sample,
                    const std::vector<double>& prior_loc, const std::vector<double>& prior_scale,
                    uintptr_t seed, uint64_t stream, const F& launch) {
  for (size_t first = 0; first < sizes.size(); first += kMostTensors) {
    NormalMany a{};
    a.seed = static_cast<const int64_t*>(pointer(seed));
    a.stream = stream + first;
    for (size_t i = first; i < sizes.size() && a.n < kMostTensors; ++i) {
      NormalTensor& tensor = a.tensors[a.n++];
      tensor.loc = pointer(loc.at(i));
      tensor.raw_scale = pointer(raw_scale.at(i));
      tensor.sample = pointer(sample.at(i));
      tensor.prior_loc = prior_loc.at(i);
      tensor.prior_scale = prior_scale.at(i);
      tensor.numel = sizes[i];
      tensor.first_piece = a.pieces;
      a.pieces += pieces_of(sizes[i]);
    }
    if (a.pieces > 0) launch(a, first);
  }
}

// An address of 0, of `kl` or of a sample, is an unwanted result.
void normal_many_forward(int dtype, int parametrization, const std::vector<int64_t>& sizes,
                         const Addresses& loc, const Addresses& raw_scale,
                         const std::vector<double>& prior_loc,
                         const std::vector<double>& prior_scale, uintptr_t seed, uint64_t stream,
                         const Addresses& sample, uintptr_t partials, uintptr_t kl,
                         uintptr_t cuda_stream) {
  const auto forward = normal_many_kernels[parametrization].forward[dtype];
  py::gil_scoped_release release;
  NormalTotal total{static_cast<double*>(pointer(partials)), 0, pointer(kl)};
  for_each_table(sizes, loc, raw_scale, sample, prior_loc, prior_scale, seed, stream,
                 [&](NormalMany& a, size_t) {
                   a.partials = static_cast<double*>(pointer(partials)) + total.pieces;
                   total.pieces += a.pieces;
                   forward(a, stream_of(cuda_stream));
                   check_launch(kName, sizes);
                 });
  if (total.kl == nullptr) return;
  normal_many_total[dtype](total, stream_of(cuda_stream));
  check_launch(kName, sizes);
}

void normal_many_backward(int dtype, int parametrization, const std::vector<int64_t>& sizes,
                          const Addresses& loc, const Addresses& raw_scale,
                          const std::vector<double>& prior_loc,
                          const std::vector<double>& prior_scale, uintptr_t seed, uint64_t stream,
                          const Addresses& grad_sample, uintptr_t grad_kl,
                          const Addresses& grad_loc, const Addresses& grad_raw_scale,
                          uintptr_t cuda_stream) {
  const auto backward = normal_many_kernels[parametrization].backward[dtype];
  py::gil_scoped_release release;
  for_each_table(sizes, loc, raw_scale, grad_sample, prior_loc, prior_scale, seed, stream,
                 [&](NormalMany& a, size_t first) {
                   a.grad_kl = pointer(grad_kl);
                   for (int i = 0; i < a.n; ++i) {
                     a.tensors[i].grad_loc = pointer(grad_loc.at(first + i));
                     a.tensors[i].grad_raw_scale = pointer(grad_raw_scale.at(first + i));
                   }
                   backward(a, stream_of(cuda_stream));
                   check_launch(kName, sizes);
                 });
}

}  // namespace

void register_normal_many(py::module_& m) {
  m.def("normal_many_partials", &normal_many_partials);
  m.def("normal_many_forward", &normal_many_forward);
  m.def("normal_many_backward", &normal_many_backward);
}

}  // namespace bsl::cuda
