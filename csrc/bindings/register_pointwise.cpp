// All pointwise ops by their place in the table of pointwise/ops.h, on the CPU and on CUDA devices.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/operands.h"
#include "bindings/tensors.h"
#include "core/pointwise.h"
#include "device.h"     // of cpu/ or of cuda/
#include "pointwise.h"  // of cpu/ or of cuda/

namespace py = pybind11;

namespace bsl {
namespace {

struct Entry {
  const char* name;
  const PointwiseKernels& (*kernels)();
};

#define BSL_ENTRY(name) \
  {#name, []() -> const PointwiseKernels& { return BSL_SELECT(name##_kernels); }},
constexpr Entry kOps[] = {
    BSL_POINTWISE_OPS(BSL_ENTRY)
#ifdef BSL_CUDA
        BSL_ENTRY(row_sums)  // sums of other ops' results
#endif
};
#undef BSL_ENTRY

using Sizes = std::vector<int64_t>;

int64_t numel(const Sizes& sizes) {
  int64_t n = 1;
  for (const int64_t size : sizes) n *= size;
  return n;
}

// Maps the name of each op to (index, number of tensors, has values, has logarithms, draws, takes a
// number of samples, passes_on of each variant).
py::dict pointwise_ops() {
  py::dict ops;
  int index = 0;
  for (const Entry& entry : kOps) {
    const PointwiseKernels& kernels = entry.kernels();
    py::list passes_on;
    for (int i = 0; i < kernels.n_variants; ++i) passes_on.append(kernels.variants[i].passes_on);
    ops[entry.name] = py::make_tuple(index++, kernels.inputs, (kernels.results & kValue) != 0,
                                     (kernels.results & kLog) != 0, kernels.noise != Noise::none,
                                     kernels.samples, passes_on);
  }
  return ops;
}

// Fills in the part that all calls have, and returns the kernels of the variant.
template <typename Call>
const PointwiseVariant& start(Call& a, const Entry& entry, int variant, const DType& dtype,
                              const Sizes& sizes, std::vector<PyOperand>& inputs,
                              std::vector<PyOperand*> others, const std::vector<double>& numbers) {
  const PointwiseKernels& kernels = entry.kernels();
  if (static_cast<int>(inputs.size()) != kernels.inputs || numbers.size() > kMaxNumbers ||
      variant < 0 || variant >= kernels.n_variants) {
    throw std::invalid_argument(std::string(entry.name) + ": not what its kernels take");
  }
  for (PyOperand& input : inputs) others.push_back(&input);
  a.shape = make_shape(sizes, others, dtype.storage);
  for (size_t i = 0; i < inputs.size(); ++i) a.inputs[i] = inputs[i].operand;
  for (size_t i = 0; i < numbers.size(); ++i) a.numbers[i] = numbers[i];
  return kernels.variants[variant];
}

#ifndef BSL_CUDA
// --- On the CPU ---

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

// Where the results of a call go.
struct To {
  void* value;
  Reduction reduction;
  void* log;
};

// Returns the bits of the inputs that are outside their domain.
int run_forward(int op, int variant, const DType& dtype, const Sizes& sizes,
                std::vector<PyOperand>& inputs, const std::vector<double>& numbers, uint64_t seed,
                uint64_t stream, const To& to, int64_t n_samples) {
  int invalid = 0;
  PointwiseForward a{};
  const PointwiseVariant& kernels = start(a, kOps[op], variant, dtype, sizes, inputs, {}, numbers);
  a.seed = seed;
  a.stream = stream;
  a.storage = dtype.storage;
  a.value = to.value;
  a.reduction = to.reduction;
  a.log = to.log;
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

// `value_sizes` are those of the values, with samples in front.
void run_backward(int op, int variant, const DType& dtype, const Sizes& sizes,
                  std::vector<PyOperand>& inputs, const std::vector<double>& numbers, uint64_t seed,
                  uint64_t stream, const Sizes& value_sizes, PyOperand& grad_value,
                  PyOperand& grad_log, const std::vector<Grad>& grads, int64_t n_samples) {
  PointwiseBackward a{};
  const PointwiseVariant& kernels =
      start(a, kOps[op], variant, dtype, sizes, inputs, {&grad_log}, numbers);
  a.value_shape = make_shape(value_sizes, {&grad_value}, dtype.storage);
  a.n_samples = n_samples;
  a.seed = seed;
  a.stream = stream;
  a.grad_value = grad_value.operand;
  a.grad_log = grad_log.operand;
  a.grad_log.storage = Storage::native;
  for (size_t i = 0; i < inputs.size(); ++i) a.grads[i] = grads.at(i);
  a.plan = ChunkPlan(a.shape.numel, 1, Reduction::none, largest_chunk(n_samples));
  const Released released(a.plan);
  for (const Grad& grad : a.grads) expect_writes(grad.data, a.shape.numel * dtype.size);
  (dtype.is_double ? kernels.backward_double : kernels.backward_float)(a);
}

int pointwise_forward(int op, int variant, int dtype_code, const Sizes& sizes,
                      const py::sequence& tensors, const std::vector<double>& numbers,
                      uintptr_t seed, uint64_t stream, uintptr_t value, int reduction,
                      uintptr_t log, int64_t n_samples) {
  std::vector<PyOperand> inputs = operands_of(tensors, sizes);
  const To to{pointer(value), static_cast<Reduction>(reduction), pointer(log)};
  return run_forward(op, variant, DType(dtype_code), sizes, inputs, numbers, read_seed(seed),
                     stream, to, n_samples);
}

void pointwise_backward(int op, int variant, int dtype_code, const Sizes& sizes,
                        const py::sequence& tensors, const std::vector<double>& numbers,
                        uintptr_t seed, uint64_t stream, py::handle of_value, py::handle of_log,
                        const std::vector<PyGrad>& grads, int64_t n_samples) {
  std::vector<PyOperand> inputs = operands_of(tensors, sizes);
  PyOperand grad_log = operand_of(of_log, sizes);
  Sizes value_sizes(sizes);
  if (n_samples > 1) value_sizes.insert(value_sizes.begin(), n_samples);
  PyOperand grad_value = operand_of(of_value, value_sizes);
  std::vector<Grad> made;
  for (const PyGrad& grad : grads) made.push_back(make_grad(grad));
  run_backward(op, variant, DType(dtype_code), sizes, inputs, numbers, read_seed(seed), stream,
               value_sizes, grad_value, grad_log, made, n_samples);
}

// The gradient of a result: 0 if none arrived. One for each row serves all elements of the row.
PyOperand incoming(const py::object& grad, const Sizes& sizes, bool of_rows) {
  PyOperand found;
  if (grad.is_none()) {
    found.operand.kind = Operand::Kind::constant;
    return found;
  }
  const TensorView view = view_of(grad);
  if (!of_rows) return operand_of(view, sizes);
  found.operand.kind = Operand::Kind::strided;
  found.operand.data = view.data;
  found.strides.assign(view.strides, view.strides + view.ndim);
  found.strides.push_back(0);
  return found;
}

// A call on plain tensors of float32 or float64, of which the last one is the seed if the op draws.
// `samples` are dimensions in front of those of the elements. They are one number of samples of
// each element if `apart` is true; else a sample of an element is an element. The first tensor is
// two tensors side by side if `halved` is true.
struct OnTensors {
  std::vector<TensorView> views;
  Sizes sizes, value_sizes;  // of the elements, of the values
  int64_t n_samples = 1;
  uint64_t seed = 0;
  // Whether it is a call as most are. Python sees to the others.
  bool is_usual = true;

  OnTensors(const PointwiseKernels& kernels, const py::tuple& tensors, const Sizes& samples,
            bool apart, bool halved) {
    const bool draws = kernels.noise != Noise::none;
    for (const py::handle tensor : tensors) views.push_back(view_of(tensor));
    if (halved) halve();
    if (draws) {
      seed = static_cast<uint64_t>(*static_cast<const int64_t*>(views.back().data));
      views.pop_back();
    }
    for (const TensorView& view : views) broadcast(view);
    value_sizes = samples;
    value_sizes.insert(value_sizes.end(), sizes.begin(), sizes.end());
    if (apart) {
      is_usual = is_usual && samples.size() == 1 && samples[0] > 1;
      n_samples = is_usual ? samples[0] : 1;
    } else {
      sizes = value_sizes;
    }
    is_usual = is_usual && value_sizes.size() <= kMaxDims &&
               std::find(value_sizes.begin(), value_sizes.end(), 0) == value_sizes.end();
  }

  // How many numbers a row of a half has.
  int64_t half() const { return half_sizes_.back(); }

  DType dtype() const { return DType(views[0].is_double ? 1 : 0); }

  std::vector<PyOperand> operands() const {
    std::vector<PyOperand> found;
    for (const TensorView& view : views) found.push_back(operand_of(view, sizes));
    return found;
  }

 private:
  Sizes half_sizes_;

  // Puts the two halves of the first tensor's last dimension in its place.
  void halve() {
    TensorView first = views[0];
    half_sizes_.assign(first.sizes, first.sizes + first.ndim);
    half_sizes_.back() /= 2;
    first.sizes = half_sizes_.data();
    TensorView second = first;
    const int64_t bytes = first.is_double ? 8 : 4;
    second.data = static_cast<char*>(first.data) + half() * first.strides[first.ndim - 1] * bytes;
    views[0] = first;
    views.insert(views.begin() + 1, second);
  }

  void broadcast(const TensorView& view) {
    const size_t ndim = static_cast<size_t>(view.ndim);
    if (ndim > sizes.size()) sizes.insert(sizes.begin(), ndim - sizes.size(), 1);
    for (size_t d = 0; d < ndim; ++d) {
      int64_t& size = sizes[sizes.size() - ndim + d];
      if (size == 1) size = view.sizes[d];
      if (view.sizes[d] != 1 && view.sizes[d] != size) is_usual = false;
    }
  }
};

// The results of a call on plain tensors. None if it is an unusual one, or has inputs outside their
// domain.
py::object pointwise_results(int op, int variant, const std::vector<double>& numbers,
                             uint64_t stream, int reduction, const Sizes& samples, bool apart,
                             bool halved, const py::tuple& tensors) {
  const PointwiseKernels& kernels = kOps[op].kernels();
  const OnTensors call(kernels, tensors, samples, apart, halved);
  if (!call.is_usual) return py::none();
  const py::handle like = tensors[0];
  To to{nullptr, static_cast<Reduction>(reduction), nullptr};
  py::object value, log;
  if ((kernels.results & kValue) != 0) {
    value = room_for(call.value_sizes, like);
    to.value = view_of(value).data;
  }
  if ((kernels.results & kLog) != 0) {
    Sizes sizes(call.sizes);
    if (to.reduction == Reduction::sum) sizes.clear();
    if (to.reduction == Reduction::row) sizes.pop_back();
    log = room_for(sizes, like);
    to.log = view_of(log).data;
  }
  std::vector<PyOperand> inputs = call.operands();
  if (run_forward(op, variant, call.dtype(), call.sizes, inputs, numbers, call.seed, stream, to,
                  call.n_samples) != 0) {
    return py::none();
  }
  if (!value) return log;
  return log ? py::object(py::make_tuple(value, log)) : value;
}

// The gradients of the tensors of such a call, and None for the seed, if there is one, and for what
// a Function keeps. None alone if it is an unusual one.
py::object pointwise_gradients(int op, int variant, const std::vector<double>& numbers,
                               uint64_t stream, int reduction, const Sizes& samples, bool apart,
                               bool halved, const py::tuple& tensors, const py::tuple& grads,
                               const py::tuple& needs, const py::function& unbroadcast) {
  const PointwiseKernels& kernels = kOps[op].kernels();
  const OnTensors call(kernels, tensors, samples, apart, halved);
  const py::object none = py::none();
  const py::object of_value = (kernels.results & kValue) != 0 ? py::object(grads[0]) : none;
  const py::object of_log =
      (kernels.results & kLog) != 0 ? py::object(grads[grads.size() - 1]) : none;
  if (!call.is_usual || (of_value.is_none() && of_log.is_none())) return none;
  const auto has_elements = [&](size_t i) { return call.views[i].has_sizes(call.sizes); };
  int passed = -1;
  if (!of_value.is_none() && call.n_samples == 1 && !halved)
    passed = kernels.variants[variant].passes_on;
  if (passed >= 0 && !has_elements(passed)) passed = -1;
  py::tuple found(tensors.size() + 1);
  std::vector<Grad> made(call.views.size());
  std::unique_ptr<char[]> halves;
  bool any = halved;
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] = none;
    if (halved) continue;
    if (i >= call.views.size() || PyTuple_GET_ITEM(needs.ptr(), i) != Py_True) continue;
    if (static_cast<int>(i) == passed) {
      found[i] = of_value;
      continue;
    }
    const py::object grad = room_for(call.sizes, tensors[i]);
    made[i].data = view_of(grad).data;
    found[i] = grad;
    any = true;
  }
  if (!any) return found;
  const int64_t size = call.dtype().size;
  if (halved) {
    const int64_t bytes = numel(call.sizes) * size;
    halves.reset(new char[2 * bytes]);
    made[0].data = halves.get();
    made[1].data = halves.get() + bytes;
  }
  PyOperand grad_value, grad_log;
  if ((kernels.results & kValue) != 0) grad_value = incoming(of_value, call.value_sizes, false);
  if ((kernels.results & kLog) != 0) {
    const bool of_rows = static_cast<Reduction>(reduction) == Reduction::row;
    grad_log = incoming(of_log, call.sizes, of_rows);
  }
  std::vector<PyOperand> inputs = call.operands();
  run_backward(op, variant, call.dtype(), call.sizes, inputs, numbers, call.seed, stream,
               call.value_sizes, grad_value, grad_log, made, call.n_samples);
  if (halved) {
    Sizes whole(call.sizes);
    whole.back() *= 2;
    const py::object grad = room_for(whole, tensors[0]);
    char* to = static_cast<char*>(view_of(grad).data);
    const int64_t row = call.half() * size;
    for (int64_t at = 0; at < numel(call.sizes) * size; at += row) {
      for (int k = 0; k < 2; ++k, to += row) {
        std::memcpy(to, static_cast<const char*>(made[k].data) + at, row);
      }
    }
    found[0] = grad;
    return found;
  }
  for (size_t i = 0; i < call.views.size(); ++i) {
    if (made[i].data != nullptr && !has_elements(i)) found[i] = unbroadcast(found[i], tensors[i]);
  }
  return found;
}

#else
// --- On CUDA devices ---

UnitPlan plan(const Sizes& sizes, Reduction reduction) {
  return UnitPlan(numel(sizes), sizes.empty() ? 1 : sizes.back(), reduction);
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
int64_t pointwise_partials(const Sizes& sizes, int reduction) {
  return plan(sizes, static_cast<Reduction>(reduction)).n_partials();
}

// `seed` lies on the device, and so does `partials`.
void pointwise_forward(const Device& device, int op, int variant, int dtype_code,
                       const Sizes& sizes, std::vector<PyOperand> inputs,
                       const std::vector<double>& numbers, uintptr_t seed, uint64_t stream,
                       uintptr_t value, int reduction, uintptr_t log, uintptr_t partials) {
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
  device.run(kernels.forward[dtype_code], a, kOps[op].name, sizes);
}

void pointwise_backward(const Device& device, int op, int variant, int dtype_code,
                        const Sizes& sizes, std::vector<PyOperand> inputs,
                        const std::vector<double>& numbers, uintptr_t seed, uint64_t stream,
                        PyOperand grad_value, PyOperand grad_log,
                        const std::vector<PyGrad>& grads) {
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
  device.run(kernels.backward[dtype_code], a, kOps[op].name, sizes);
}

#endif
}  // namespace

void register_pointwise(py::module_& m) {
  m.def("pointwise_ops", &pointwise_ops);
#ifndef BSL_CUDA
  m.def("pointwise_forward", &pointwise_forward);
  m.def("pointwise_backward", &pointwise_backward);
  m.def("pointwise_results", &pointwise_results);
  m.def("pointwise_gradients", &pointwise_gradients);
#else
  m.def("pointwise_partials", &pointwise_partials);
  m.def("pointwise_forward", on_device(&pointwise_forward));
  m.def("pointwise_backward", on_device(&pointwise_backward));
#endif
}

}  // namespace bsl
