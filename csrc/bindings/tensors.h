// Operands made from torch's tensors, without torch's headers.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/operands.h"

namespace bsl {

// An operand of a call over `sizes`: a tensor of torch, which broadcasts to them, or what
// PyOperand is made from otherwise.
PyOperand operand_of(pybind11::handle item, const std::vector<int64_t>& sizes);
std::vector<PyOperand> operands_of(const pybind11::sequence& items,
                                   const std::vector<int64_t>& sizes);

// Contiguous float32 or float64 numbers of a tensor of torch.
struct PlainNumbers {
  void* data;
  int64_t numel;
  bool is_double;
};
PlainNumbers plain_numbers(pybind11::handle tensor);

}  // namespace bsl
