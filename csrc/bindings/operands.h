// Converts Python's view of a tensor (bslfast/_native/_operands.py) to a kernel's.
//
// An operand arrives as None (absent), a float (constant), an int (address of a contiguous tensor
// of the call's shape) or a pair (address, strides).
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "core/layout.h"

namespace bsl {

struct PyOperand {
  Operand operand;
  std::vector<int64_t> strides;  // strided
};

inline void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

// The seed of a call lies in a tensor; address 0 is a call without noise.
inline uint64_t read_seed(uintptr_t address) {
  return address == 0 ? 0 : static_cast<uint64_t>(*static_cast<const int64_t*>(pointer(address)));
}

// torch's names of the dtypes that a call may have. A dtype's code is its place in this list.
constexpr const char* kDTypeNames[] = {"float32", "float64", "bfloat16", "float16"};

struct DType {
  bool is_double;
  Storage storage;
  int64_t size;

  explicit DType(int code)
      : is_double(code == 1),
        storage(code == 2   ? Storage::bfloat16
                : code == 3 ? Storage::half
                            : Storage::native),
        size(code == 1   ? 8
             : code >= 2 ? 2
                         : 4) {}
};

// A gradient arrives as an address and the code of the dtype it is stored in, which need not be
// that of the call. Address 0 is an unwanted gradient.
using PyGrad = std::pair<uintptr_t, int>;

inline Grad make_grad(const PyGrad& grad) {
  return {pointer(grad.first), DType(grad.second).storage};
}

// Makes the shape and the strides of all operands of a call. Neighbouring dimensions are merged if
// one stride describes them in every operand. Dimensions of size 1 are dropped.
inline Shape make_shape(const std::vector<int64_t>& sizes, const std::vector<PyOperand*>& operands,
                        Storage storage = Storage::native) {
  Shape shape;
  for (const int64_t size : sizes) shape.numel *= size;
  const auto for_strided = [&](auto&& f) {
    for (PyOperand* o : operands) {
      o->operand.storage = storage;
      if (o->operand.kind == Operand::Kind::strided) f(*o);
    }
  };
  for_strided([&](PyOperand& o) {
    if (o.strides.size() != sizes.size()) throw std::invalid_argument("operand of another rank");
  });
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 1) continue;
    bool merges = shape.ndim > 0;
    for_strided([&](PyOperand& o) {
      merges = merges && o.operand.strides[shape.ndim - 1] == o.strides[d] * sizes[d];
    });
    if (!merges) {
      if (shape.ndim == kMaxDims) throw std::invalid_argument("too many strided dimensions");
      shape.sizes[shape.ndim++] = 1;
    }
    shape.sizes[shape.ndim - 1] *= sizes[d];
    for_strided([&](PyOperand& o) { o.operand.strides[shape.ndim - 1] = o.strides[d]; });
  }
  return shape;
}

}  // namespace bsl

namespace pybind11::detail {

template <>
struct type_caster<bsl::PyOperand> {
  PYBIND11_TYPE_CASTER(bsl::PyOperand,
                       const_name("None | float | int | tuple[int, tuple[int, ...]]"));

  bool load(handle source, bool) {
    bsl::Operand& operand = value.operand;
    if (source.is_none()) return true;
    if (PyFloat_Check(source.ptr())) {
      operand.kind = bsl::Operand::Kind::constant;
      operand.value = PyFloat_AS_DOUBLE(source.ptr());
      return true;
    }
    if (PyLong_Check(source.ptr())) {
      operand.kind = bsl::Operand::Kind::contiguous;
      operand.data = PyLong_AsVoidPtr(source.ptr());
      return PyErr_Occurred() == nullptr;
    }
    if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != 2) return false;
    operand.kind = bsl::Operand::Kind::strided;
    operand.data = PyLong_AsVoidPtr(PyTuple_GET_ITEM(source.ptr(), 0));
    value.strides =
        reinterpret_borrow<object>(PyTuple_GET_ITEM(source.ptr(), 1)).cast<std::vector<int64_t>>();
    return PyErr_Occurred() == nullptr;
  }
};

}  // namespace pybind11::detail
