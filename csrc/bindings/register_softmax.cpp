// All ops with a softmax by their place in the table of rows/ops.h, on the CPU and on CUDA devices.
#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/from_tuple.h"
#include "bindings/operands.h"
#include "core/softmax_call.h"
#include "device.h"   // of cpu/ or of cuda/
#include "softmax.h"  // of cpu/ or of cuda/

namespace py = pybind11;

namespace bsl {
namespace {

struct Entry {
  const char* name;
  const SoftmaxKernels& (*kernels)();
};

#define BSL_ENTRY(name) \
  {#name, []() -> const SoftmaxKernels& { return BSL_SELECT(name##_kernels); }},
constexpr Entry kOps[] = {BSL_SOFTMAX_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

// Maps the name of each op to its place.
py::dict softmax_ops() {
  py::dict ops;
  int index = 0;
  for (const Entry& entry : kOps) ops[entry.name] = index++;
  return ops;
}

// The part that all calls have, see SoftmaxCallOf.
struct PySoftmaxCall : FromTuple {
  int op;  // its place in the table
  bool is_double;
  std::vector<int64_t> sizes;  // the rows' shape
  int64_t columns, inner, x_rows;
  uintptr_t x, index, seed;
  uint64_t stream;
  double number;
  bool option;

  template <typename F>
  void each_member(const F& f) {
    f(op, is_double, sizes, columns, inner, x_rows, x, index, seed, stream, number, option);
  }
};

// `others` are operands beside x.
template <typename Call>
const Entry& start(Call& a, const PySoftmaxCall& call, const std::vector<PyOperand*>& others) {
  a.shape = make_shape(call.sizes, others);
  a.columns = call.columns;
  a.inner = call.inner;
  a.x_rows = call.x_rows;
  a.x = pointer(call.x);
  a.index = static_cast<const int64_t*>(pointer(call.index));
  a.seed = static_cast<const int64_t*>(pointer(call.seed));
  a.stream = call.stream;
  a.number = call.number;
  a.option = call.option;
  return kOps[call.op];
}

// Returns whether all indices are columns. On CUDA devices nothing looks at them, and numbers are
// not summed: there is one for each row.
bool softmax_forward(const Device& device, const PySoftmaxCall& call, int reduction,
                     uintptr_t result) {
  int invalid = 0;
  SoftmaxForward a{};
  const Entry& op = start(a, call, {});
  a.result = pointer(result);
  a.reduction = static_cast<Reduction>(reduction);
  a.invalid = &invalid;
  cut_rows(a.shape, a.columns, a.reduction);
  const auto partials = add_partials(a);
  const SoftmaxKernels& kernels = op.kernels();
  py::gil_scoped_release release;
  device.run(call.is_double ? kernels.forward_double : kernels.forward_float, a, op.name,
             call.sizes, a.columns);
  return invalid == 0;
}

void softmax_backward(const Device& device, const PySoftmaxCall& call, PyOperand grad,
                      uintptr_t grad_x) {
  SoftmaxBackward a{};
  const Entry& op = start(a, call, {&grad});
  cut_rows(a.shape, a.columns, Reduction::none);
  a.grad = grad.operand;
  a.grad_x = pointer(grad_x);
  const SoftmaxKernels& kernels = op.kernels();
  py::gil_scoped_release release;
  device.run(call.is_double ? kernels.backward_double : kernels.backward_float, a, op.name,
             call.sizes, a.columns);
}

}  // namespace

void register_softmax(py::module_& m) {
  m.def("softmax_ops", &softmax_ops);
  m.def("softmax_forward", on_device(&softmax_forward));
  m.def("softmax_backward", on_device(&softmax_backward));
}

}  // namespace bsl
