// All pointwise ops, by their place in the table of pointwise/ops.h.
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>

#include "bindings/pointwise_call.h"
#include "bindings/tensors.h"
#include "cpu/memory.h"
#include "cpu/pointwise.h"

namespace py = pybind11;

namespace bsl {
namespace {

struct Entry {
  const char* name;
  const PointwiseKernels& (*kernels)();
};

#define BSL_ENTRY(name) \
  {#name, []() -> const PointwiseKernels& { return BSL_SELECT(name##_kernels); }},
constexpr Entry kOps[] = {BSL_POINTWISE_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

// An element with many samples is much work. Chunks are then shorter, so that all threads get some.
int64_t largest_chunk(int64_t n_samples) {
  const int64_t blocks = kChunk / kBlock / n_samples;
  return (blocks > 1 ? blocks : 1) * kBlock;
}

// Lets other threads run Python during a call, unless it has one chunk only. Such a call takes less
// time than to wake another thread.
class Released {
 public:
  explicit Released(const ChunkPlan& plan) {
    if (plan.n_chunks > 1) released_.emplace();
  }

 private:
  std::optional<py::gil_scoped_release> released_;
};

// Returns the bits of the inputs that are outside their domain.
int pointwise_forward(int op, int variant, int dtype_code, const std::vector<int64_t>& sizes,
                      const py::sequence& tensors, const std::vector<double>& numbers,
                      uintptr_t seed, uint64_t stream, uintptr_t value, int reduction,
                      uintptr_t log, int64_t n_samples) {
  const DType dtype(dtype_code);
  int invalid = 0;
  PointwiseForward a{};
  std::vector<PyOperand> inputs = operands_of(tensors, sizes);
  const PointwiseVariant& kernels = start(a, kOps[op], variant, dtype, sizes, inputs, {}, numbers);
  a.seed = read_seed(seed);
  a.stream = stream;
  a.storage = dtype.storage;
  a.value = pointer(value);
  a.reduction = static_cast<Reduction>(reduction);
  a.log = pointer(log);
  a.invalid = &invalid;
  a.n_samples = n_samples;
  a.plan = ChunkPlan(a.shape.numel, sizes.empty() ? 1 : sizes.back(), a.reduction,
                     largest_chunk(n_samples));
  std::unique_ptr<double[]> partials;
  if (a.plan.n_partials() > 0) partials.reset(new double[a.plan.n_partials()]);
  a.partials = partials.get();
  {
    const Released released(a.plan);
    expect_writes(a.value, n_samples * a.shape.numel * dtype.size);
    (dtype.is_double ? kernels.forward_double : kernels.forward_float)(a);
  }
  return invalid;
}

void pointwise_backward(int op, int variant, int dtype_code, const std::vector<int64_t>& sizes,
                        const py::sequence& tensors, const std::vector<double>& numbers,
                        uintptr_t seed, uint64_t stream, py::handle of_value, py::handle of_log,
                        const std::vector<PyGrad>& grads, int64_t n_samples) {
  const DType dtype(dtype_code);
  PointwiseBackward a{};
  std::vector<PyOperand> inputs = operands_of(tensors, sizes);
  PyOperand grad_log = operand_of(of_log, sizes);
  const PointwiseVariant& kernels =
      start(a, kOps[op], variant, dtype, sizes, inputs, {&grad_log}, numbers);
  std::vector<int64_t> value_sizes(sizes);
  if (n_samples > 1) value_sizes.insert(value_sizes.begin(), n_samples);
  PyOperand grad_value = operand_of(of_value, value_sizes);
  a.value_shape = make_shape(value_sizes, {&grad_value}, dtype.storage);
  a.n_samples = n_samples;
  a.seed = read_seed(seed);
  a.stream = stream;
  a.grad_value = grad_value.operand;
  a.grad_log = grad_log.operand;
  a.grad_log.storage = Storage::native;
  for (size_t i = 0; i < inputs.size(); ++i) a.grads[i] = make_grad(grads.at(i));
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none, largest_chunk(n_samples));
  const Released released(a.plan);
  for (const Grad& grad : a.grads) expect_writes(grad.data, a.shape.numel * dtype.size);
  (dtype.is_double ? kernels.backward_double : kernels.backward_float)(a);
}

}  // namespace

void register_pointwise(py::module_& m) {
  m.def("pointwise_ops", []() { return describe_ops(kOps); });
  m.def("pointwise_forward", &pointwise_forward);
  m.def("pointwise_backward", &pointwise_backward);
}

}  // namespace bsl
