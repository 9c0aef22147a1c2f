// Operands made from torch's tensors, without torch's headers.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "bindings/operands.h"

namespace bsl {

// What kernels must know of a tensor of torch that is plain memory on the CPU. `sizes` and
// `strides` are the tensor's own.
struct TensorView {
  void* data;
  int ndim;
  const int64_t* sizes;
  const int64_t* strides;
  bool is_double;
  bool is_native;  // float32 or float64

  bool has_sizes(const std::vector<int64_t>& other) const {
    return std::equal(sizes, sizes + ndim, other.begin(), other.end());
  }
  bool is_contiguous() const;
  std::vector<int64_t> shape() const { return {sizes, sizes + ndim}; }
  int64_t numel() const {
    int64_t n = 1;
    for (int d = 0; d < ndim; ++d) n *= sizes[d];
    return n;
  }
};
TensorView view_of(pybind11::handle tensor);

// Makes contiguous room for numbers of the dtype of `like`.
pybind11::object room_for(const std::vector<int64_t>& sizes, pybind11::handle like);

// An operand of a call over `sizes`: a tensor of torch, which broadcasts to them, or what
// PyOperand is made from otherwise.
PyOperand operand_of(const TensorView& tensor, const std::vector<int64_t>& sizes);
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
