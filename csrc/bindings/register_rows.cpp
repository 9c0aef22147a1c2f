// All ops over rows by their place in the table of rows/ops.h, on the CPU and on CUDA devices.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/names.h"
#include "bindings/operands.h"
#include "core/rows.h"
#include "device.h"  // of cpu/ or of cuda/
#include "rows.h"    // of cpu/ or of cuda/

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

using Sizes = std::vector<int64_t>;
using CallShape = decltype(RowForward::shape);

// Maps the name of each op to (index, the members of its signature, variants). Kinds are the
// numbers of Per.
py::dict row_ops() {
  py::dict ops;
  int index = 0;
  for (const Entry& entry : kOps) {
    const RowKernels& kernels = entry.kernels();
    const RowSignature& s = kernels.signature;
    py::list kinds;
    for (int i = 0; i < s.inputs; ++i) kinds.append(static_cast<int>(s.kinds[i]));
    ops[entry.name] = py::make_tuple(index++, kinds, static_cast<int>(s.value), s.has_log,
                                     s.reduces, s.adds_up, s.longest, kernels.n_variants);
  }
  return ops;
}

void cut(CallShape& shape, const RowSignature& s, int64_t width, int64_t last,
         Reduction reduction) {
  if (s.kinds[0] == Per::row) {
    cut_rows(shape, width, reduction);
  } else {
    cut_elements(shape, last, reduction);
  }
}

// How many sums make the gradient of a row that serves all elements.
int64_t row_chunks(int op, int64_t elements, int64_t width) {
  CallShape shape{};
  shape.numel = elements;
  cut(shape, kOps[op].kernels().signature, width, 1, Reduction::none);
  return n_sums(shape);
}

// Fills in the part that all calls have, and returns the kernels of the variant.
template <typename Call>
const RowVariant& start(Call& a, const Entry& entry, int variant, const Sizes& sizes,
                        std::vector<PyOperand>& inputs, const Sizes& widths,
                        std::vector<PyOperand*> others, const std::vector<double>& numbers) {
  const RowKernels& kernels = entry.kernels();
  const RowSignature& s = kernels.signature;
  bool fits = static_cast<int>(inputs.size()) == s.inputs && widths.size() == inputs.size() &&
              numbers.size() <= kMaxNumbers && variant >= 0 && variant < kernels.n_variants;
  // The first row, from whose length the others' follow.
  const size_t first = s.kinds[0] == Per::row ? 0 : 1;
  fits = fits && (s.longest == 0 || (widths[first] >= 1 && widths[first] <= s.longest));
  if (!fits) throw std::invalid_argument(std::string(entry.name) + ": not what its kernels take");
  for (PyOperand& input : inputs) others.push_back(&input);
  a.shape = make_shape(sizes, others);
  for (size_t i = 0; i < inputs.size(); ++i) {
    a.inputs[i] = inputs[i].operand;
    a.widths[i] = widths[i];
  }
  for (size_t i = 0; i < numbers.size(); ++i) a.numbers[i] = numbers[i];
  a.variant = variant;
  return kernels.variants[variant];
}

// Returns the bits of the inputs that are outside their domain. On CUDA devices nothing looks at
// them, and logarithms are not summed: there is one for each element.
int row_forward(const Device& device, int op, int variant, bool is_double, const Sizes& sizes,
                std::vector<PyOperand> inputs, const Sizes& widths,
                const std::vector<double>& numbers, uintptr_t value, int reduction, uintptr_t log) {
  int invalid = 0;
  RowForward a{};
  const Entry& entry = kOps[op];
  const RowVariant& kernels = start(a, entry, variant, sizes, inputs, widths, {}, numbers);
  const RowSignature& s = entry.kernels().signature;
  a.value = pointer(value);
  a.reduction = static_cast<Reduction>(reduction);
  a.log = pointer(log);
  a.invalid = &invalid;
  cut(a.shape, s, widths[0], sizes.empty() ? 1 : sizes.back(), a.reduction);
  const auto partials = add_partials(a);
  py::gil_scoped_release release;
  const int64_t value_width = s.value == Per::row ? widths[0] : 1;
  expect_writes(a.value, a.shape.numel * value_width * (is_double ? 8 : 4));
  device.run(is_double ? kernels.forward_double : kernels.forward_float, a, entry.name, sizes);
  return invalid;
}

// `coefficients`: with `sums` on CUDA devices, room for kMaxCoefficients numbers for each element.
void row_backward(const Device& device, int op, int variant, bool is_double, const Sizes& sizes,
                  std::vector<PyOperand> inputs, const Sizes& widths,
                  const std::vector<double>& numbers, PyOperand grad_value, PyOperand grad_log,
                  const std::vector<uintptr_t>& grads, const std::vector<uintptr_t>& sums,
                  uintptr_t coefficients) {
  RowBackward a{};
  const Entry& entry = kOps[op];
  const RowVariant& kernels =
      start(a, entry, variant, sizes, inputs, widths, {&grad_value, &grad_log}, numbers);
  a.grad_value = grad_value.operand;
  a.grad_log = grad_log.operand;
  cut(a.shape, entry.kernels().signature, widths[0], 1, Reduction::none);
  for (size_t i = 0; i < inputs.size(); ++i) {
    a.grads[i] = pointer(grads.at(i));
    a.sums[i] = static_cast<double*>(pointer(sums.at(i)));
  }
  a.coefficients = pointer(coefficients);
  py::gil_scoped_release release;
  for (size_t i = 0; i < inputs.size(); ++i) {
    expect_writes(a.grads[i], a.shape.numel * widths[i] * (is_double ? 8 : 4));
  }
  device.run(is_double ? kernels.backward_double : kernels.backward_float, a, entry.name, sizes);
}

}  // namespace

void register_rows(py::module_& m) {
  m.attr("PER") = tuple_of(kPerNames);
  m.attr("ROW_COEFFICIENTS") = kMaxCoefficients;
  m.def("row_ops", &row_ops);
  m.def("row_chunks", &row_chunks);
  m.def("row_forward", on_device(&row_forward));
  m.def("row_backward", on_device(&row_backward));
}

}  // namespace bsl
