// All ops over rows by their place in the table of rows/ops.h.
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/names.h"
#include "bindings/rows_call.h"
#include "cpu/memory.h"
#include "cpu/rows.h"

namespace py = pybind11;

namespace bsl {
namespace {

struct Entry {
  const char* name;
  const RowKernels& (*kernels)();
};

#define BSL_ENTRY(name) {#name, []() -> const RowKernels& { return BSL_SELECT(name##_kernels); }},
constexpr Entry kOps[] = {BSL_ROW_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

// Chunks of rows depend on the rows' length. An element with rows of parameters is as much work as
// dozens of other elements.
ChunkPlan plan(const RowSignature& s, int64_t elements, int64_t width, int64_t last,
               Reduction reduction) {
  if (s.kinds[0] == Per::row) return plan_rows(elements, width > 0 ? width : 1, reduction);
  return ChunkPlan(elements, last, reduction, 2 * kBlock);
}

// The gradient of a row that serves all elements is summed chunk by chunk. Returns how many sums
// there are.
int64_t row_chunks(int op, int64_t elements, int64_t width) {
  return plan(kOps[op].kernels().signature, elements, width, 1, Reduction::none).n_chunks;
}

// Returns the bits of the inputs that are outside their domain.
int row_forward(int op, int variant, bool is_double, const std::vector<int64_t>& sizes,
                std::vector<PyOperand> inputs, const std::vector<int64_t>& widths,
                const std::vector<double>& numbers, uintptr_t value, int reduction, uintptr_t log) {
  int invalid = 0;
  RowForward a{};
  const RowVariant& kernels = start_rows(a, kOps[op], variant, sizes, inputs, widths, {}, numbers);
  a.value = pointer(value);
  a.reduction = static_cast<Reduction>(reduction);
  a.log = pointer(log);
  a.invalid = &invalid;
  const RowSignature& s = kOps[op].kernels().signature;
  const ChunkPlan& cut = a.shape.plan =
      plan(s, a.shape.numel, widths[0], sizes.empty() ? 1 : sizes.back(), a.reduction);
  const std::unique_ptr<double[]> partials(new double[cut.n_partials()]);
  a.partials = cut.n_partials() > 0 ? partials.get() : nullptr;
  {
    py::gil_scoped_release release;
    expect_writes(a.value,
                  a.shape.numel * (s.value == Per::row ? widths[0] : 1) * (is_double ? 8 : 4));
    (is_double ? kernels.forward_double : kernels.forward_float)(a);
  }
  return invalid;
}

void row_backward(int op, int variant, bool is_double, const std::vector<int64_t>& sizes,
                  std::vector<PyOperand> inputs, const std::vector<int64_t>& widths,
                  const std::vector<double>& numbers, PyOperand grad_value, PyOperand grad_log,
                  const std::vector<uintptr_t>& grads, const std::vector<uintptr_t>& sums) {
  RowBackward a{};
  const RowVariant& kernels =
      start_rows(a, kOps[op], variant, sizes, inputs, widths, {&grad_value, &grad_log}, numbers);
  a.grad_value = grad_value.operand;
  a.grad_log = grad_log.operand;
  a.shape.plan = plan(kOps[op].kernels().signature, a.shape.numel, widths[0], 1, Reduction::none);
  for (size_t i = 0; i < inputs.size(); ++i) {
    a.grads[i] = pointer(grads.at(i));
    a.sums[i] = static_cast<double*>(pointer(sums.at(i)));
  }
  py::gil_scoped_release release;
  for (size_t i = 0; i < inputs.size(); ++i) {
    expect_writes(a.grads[i], a.shape.numel * widths[i] * (is_double ? 8 : 4));
  }
  (is_double ? kernels.backward_double : kernels.backward_float)(a);
}

}  // namespace

void register_rows(py::module_& m) {
  m.attr("PER") = tuple_of(kPerNames);
  m.def("row_ops", []() { return describe_rows(kOps); });
  m.def("row_chunks", &row_chunks);
  m.def("row_forward", &row_forward);
  m.def("row_backward", &row_backward);
}

}  // namespace bsl
