// All pointwise ops that have CUDA kernels, by their place in the table of cuda/pointwise.h. Like
// register_pointwise.cpp. A call also has a CUDA stream, and memory for partial sums.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <iterator>

#include "bindings/launch.h"
#include "bindings/pointwise_call.h"
#include "cuda/pointwise.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

struct Entry {
  const char* name;
  const PointwiseKernels& (*kernels)();
};

#define BSL_ENTRY(name) {#name, []() -> const PointwiseKernels& { return name##_kernels; }},
constexpr Entry kOps[] = {BSL_CUDA_POINTWISE_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

UnitPlan plan(const std::vector<int64_t>& sizes, Reduction reduction) {
  int64_t numel = 1;
  for (const int64_t size : sizes) numel *= size;
  return UnitPlan(numel, sizes.empty() ? 1 : sizes.back(), reduction);
}

// Results may be stored as native numbers. A group of those is 16 bytes.
bool is_aligned(const void* result) { return reinterpret_cast<uintptr_t>(result) % 16 == 0; }

// Whether kernels may read or write whole groups of an operand. Its storage is the call's.
template <typename Call>
bool reads_whole_groups(const Call& a, const DType& dtype, const Operand& x) {
  // 4 numbers, or 2 of type double.
  const size_t bytes = dtype.is_double ? 16 : 4 * static_cast<size_t>(dtype.size);
  return has_whole_groups(x, a.shape, bytes);
}

// Likewise for all tensors.
template <typename Call>
bool reads_whole_groups(const Call& a, const DType& dtype) {
  return std::all_of(std::begin(a.inputs), std::end(a.inputs),
                     [&](const Operand& x) { return reads_whole_groups(a, dtype, x); });
}

// Numbers of type double that pointwise_forward needs at `partials`.
int64_t pointwise_partials(const std::vector<int64_t>& sizes, int reduction) {
  return plan(sizes, static_cast<Reduction>(reduction)).n_partials();
}

void pointwise_forward(int op, int variant, int dtype_code, const std::vector<int64_t>& sizes,
                       std::vector<PyOperand> inputs, const std::vector<double>& numbers,
                       uintptr_t seed, uint64_t stream, uintptr_t value, int reduction,
                       uintptr_t log, uintptr_t partials, uintptr_t cuda_stream) {
  const DType dtype(dtype_code);
  PointwiseForward a{};
  const PointwiseVariant& kernels = start(a, kOps[op], variant, dtype, sizes, inputs, {}, numbers);
  a.seed = static_cast<const int64_t*>(pointer(seed));
  a.stream = stream;
  a.value = pointer(value);
  a.reduction = static_cast<Reduction>(reduction);
  a.log = pointer(log);
  a.plan = plan(sizes, a.reduction);
  a.partials = static_cast<double*>(pointer(partials));
  a.whole_groups = reads_whole_groups(a, dtype) && is_aligned(a.value) && is_aligned(a.log);
  py::gil_scoped_release release;
  kernels.forward[dtype_code](a, stream_of(cuda_stream));
  check_launch(kOps[op].name, sizes);
}

void pointwise_backward(int op, int variant, int dtype_code, const std::vector<int64_t>& sizes,
                        std::vector<PyOperand> inputs, const std::vector<double>& numbers,
                        uintptr_t seed, uint64_t stream, PyOperand grad_value, PyOperand grad_log,
                        const std::vector<PyGrad>& grads, uintptr_t cuda_stream) {
  const DType dtype(dtype_code);
  PointwiseBackward a{};
  const PointwiseVariant& kernels =
      start(a, kOps[op], variant, dtype, sizes, inputs, {&grad_value, &grad_log}, numbers);
  a.seed = static_cast<const int64_t*>(pointer(seed));
  a.stream = stream;
  a.grad_value = grad_value.operand;
  a.grad_log = grad_log.operand;
  // A logarithm's gradient is stored as native numbers.
  a.whole_groups = reads_whole_groups(a, dtype) && reads_whole_groups(a, dtype, a.grad_value) &&
                   has_whole_groups(a.grad_log, a.shape, 16);
  for (size_t i = 0; i < inputs.size(); ++i) {
    a.grads[i] = make_grad(grads.at(i));
    a.whole_groups = a.whole_groups && is_aligned(a.grads[i].data);
  }
  py::gil_scoped_release release;
  kernels.backward[dtype_code](a, stream_of(cuda_stream));
  check_launch(kOps[op].name, sizes);
}

}  // namespace

void register_pointwise(py::module_& m) {
  m.def("pointwise_ops", []() { return describe_ops(kOps); });
  m.def("pointwise_partials", &pointwise_partials);
  m.def("pointwise_forward", &pointwise_forward);
  m.def("pointwise_backward", &pointwise_backward);
}

}  // namespace bsl::cuda
