// Like register_rows.cpp. A call also has a CUDA stream, and memory for coefficients. Logarithms
// are not summed: there is one for each element.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "bindings/rows_call.h"
#include "cuda/rows.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

struct Entry {
  const char* name;
  const RowKernels& (*kernels)();
};

#define BSL_ENTRY(name) {#name, []() -> const RowKernels& { return name##_kernels; }},
constexpr Entry kOps[] = {BSL_ROW_OPS(BSL_ENTRY)};
#undef BSL_ENTRY

int64_t row_chunks(int, int64_t elements, int64_t) {
  return (elements + kSumChunk - 1) / kSumChunk;
}

void row_forward(int op, int variant, bool is_double, const std::vector<int64_t>& sizes,
                 std::vector<PyOperand> inputs, const std::vector<int64_t>& widths,
                 const std::vector<double>& numbers, uintptr_t value, uintptr_t log,
                 uintptr_t cuda_stream) {
  RowForward a{};
  const RowVariant& kernels = start_rows(a, kOps[op], variant, sizes, inputs, widths, {}, numbers);
  a.value = pointer(value);
  a.log = pointer(log);
  py::gil_scoped_release release;
  (is_double ? kernels.forward_double : kernels.forward_float)(a, stream_of(cuda_stream));
  check_launch(kOps[op].name, sizes);
}

void row_backward(int op, int variant, bool is_double, const std::vector<int64_t>& sizes,
                  std::vector<PyOperand> inputs, const std::vector<int64_t>& widths,
                  const std::vector<double>& numbers, PyOperand grad_value, PyOperand grad_log,
                  const std::vector<uintptr_t>& grads, const std::vector<uintptr_t>& sums,
                  uintptr_t coefficients, uintptr_t cuda_stream) {
  RowBackward a{};
  const RowVariant& kernels =
      start_rows(a, kOps[op], variant, sizes, inputs, widths, {&grad_value, &grad_log}, numbers);
  a.grad_value = grad_value.operand;
  a.grad_log = grad_log.operand;
  for (size_t i = 0; i < inputs.size(); ++i) {
    a.grads[i] = pointer(grads.at(i));
    a.sums[i] = static_cast<double*>(pointer(sums.at(i)));
  }
  a.coefficients = pointer(coefficients);
  py::gil_scoped_release release;
  (is_double ? kernels.backward_double : kernels.backward_float)(a, stream_of(cuda_stream));
  check_launch(kOps[op].name, sizes);
}

}  // namespace

void register_rows(py::module_& m) {
  m.attr("ROW_COEFFICIENTS") = kMaxCoefficients;
  m.def("row_ops", []() { return describe_rows(kOps); });
  m.def("row_chunks", &row_chunks);
  m.def("row_forward", &row_forward);
  m.def("row_backward", &row_backward);
}

}  // namespace bsl::cuda
