// multivariate_normal_rsample_kl. The means of several tensors are those of one vector.
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <vector>

#include "bindings/from_tuple.h"
#include "bindings/operands.h"
#include "cpu/memory.h"
#include "cpu/multivariate_normal.h"

namespace py = pybind11;

namespace bsl {
namespace {

using Addresses = std::vector<uintptr_t>;

// The bytes of several arrays, one behind the other, or in place if there is one array only.
class Joined {
 public:
  Joined(const std::vector<int64_t>& sizes, const Addresses& parts, int64_t item)
      : sizes_(sizes), parts_(parts), item_(item) {
    for (const int64_t size : sizes) length += size;
    if (parts.size() > 1) own_.reset(new char[length * item]);
    data = own_ ? own_.get() : parts.empty() ? nullptr : pointer(parts[0]);
  }

  void read() const {
    each([](char* own, void* part, int64_t bytes) { std::memcpy(own, part, bytes); });
  }
  void write() const {
    each([](const char* own, void* part, int64_t bytes) { std::memcpy(part, own, bytes); });
  }

  int64_t length = 0;
  void* data;

 private:
  // Calls f for the arrays that have an address.
  template <typename F>
  void each(const F& f) const {
    char* own = own_.get();
    for (size_t i = 0; own_ && i < parts_.size(); ++i) {
      if (parts_[i] != 0) f(own, pointer(parts_[i]), sizes_.at(i) * item_);
      own += sizes_.at(i) * item_;
    }
  }

  const std::vector<int64_t>& sizes_;
  const Addresses& parts_;
  const int64_t item_;
  std::unique_ptr<char[]> own_;
};

// What forward and backward take alike. The mean has a size and an address for each of its tensors.
struct PyCall : FromTuple {
  bool is_double;
  int parametrization;
  int64_t n_samples;
  std::vector<int64_t> loc_sizes;
  Addresses loc;
  uintptr_t raw_scale, lower;
  double prior_loc, prior_scale;
  uintptr_t seed;
  uint64_t stream;

  template <typename F>
  void each_member(const F& f) {
    f(is_double, parametrization, n_samples, loc_sizes, loc, raw_scale, lower, prior_loc,
      prior_scale, seed, stream);
  }

  Joined joined(const Addresses& parts) const { return {loc_sizes, parts, item()}; }
  int64_t item() const { return is_double ? 8 : 4; }
};

template <typename Call>
std::unique_ptr<double[]> start(Call& a, const PyCall& call, const Joined& loc) {
  loc.read();
  a.n = loc.length;
  a.n_samples = call.n_samples;
  a.parametrization = call.parametrization;
  a.loc = loc.data;
  a.raw_scale = pointer(call.raw_scale);
  a.lower = pointer(call.lower);
  a.prior_loc = call.prior_loc;
  a.prior_scale = call.prior_scale;
  a.seed = read_seed(call.seed);
  a.stream = call.stream;
  std::unique_ptr<double[]> scratch(new double[a.scratch_size()]);
  a.scratch = scratch.get();
  return scratch;
}

// Returns whether all scales are valid. An address of 0 is an unwanted result.
bool multivariate_normal_forward(const PyCall& call, uintptr_t samples, uintptr_t kl) {
  py::gil_scoped_release release;
  MultivariateNormalForward a{};
  const Joined means = call.joined(call.loc);
  const auto scratch = start(a, call, means);
  a.samples = pointer(samples);
  a.kl = pointer(kl);
  return (call.is_double ? BSL_SELECT(multivariate_normal_kernels).forward_double
                         : BSL_SELECT(multivariate_normal_kernels).forward_float)(a);
}

// An address of 0 is a gradient that did not arrive, or that is not wanted. Those of samples are
// one array, or of a single sample one for each mean; or there are none.
void multivariate_normal_backward(const PyCall& call, const Addresses& grad_samples,
                                  uintptr_t grad_kl, const Addresses& grad_loc,
                                  uintptr_t grad_raw_scale, uintptr_t grad_lower) {
  py::gil_scoped_release release;
  MultivariateNormalBackward a{};
  const Joined means = call.joined(call.loc), grads = call.joined(grad_loc);
  const Joined by_samples = call.joined(grad_samples);
  const auto scratch = start(a, call, means);
  by_samples.read();
  a.grad_samples = grad_samples.empty() ? nullptr : by_samples.data;
  a.grad_kl = pointer(grad_kl);
  a.grad_loc = grads.data;
  a.grad_raw_scale = pointer(grad_raw_scale);
  a.grad_lower = pointer(grad_lower);
  expect_writes(a.grad_lower, a.n * a.n * call.item());
  (call.is_double ? BSL_SELECT(multivariate_normal_kernels).backward_double
                  : BSL_SELECT(multivariate_normal_kernels).backward_float)(a);
  grads.write();
}

}  // namespace

void register_multivariate_normal(py::module_& m) {
  m.def("multivariate_normal_forward", &multivariate_normal_forward);
  m.def("multivariate_normal_backward", &multivariate_normal_backward);
}

}  // namespace bsl
