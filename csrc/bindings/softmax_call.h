// What the bindings of ops with a softmax share, on the CPU and on CUDA devices. The file that
// includes this one includes the SoftmaxKernels of either before.
#pragma once

#include <vector>

#include "bindings/from_tuple.h"
#include "bindings/operands.h"
#include "core/softmax_call.h"

namespace bsl {

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

// Maps the name of each op of a table to its place there.
template <typename Entries>
pybind11::dict describe_softmaxes(const Entries& entries) {
  pybind11::dict ops;
  int index = 0;
  for (const auto& entry : entries) ops[entry.name] = index++;
  return ops;
}

// `others` are operands beside x.
template <typename Call>
void start_softmax(Call& a, const PySoftmaxCall& call, const std::vector<PyOperand*>& others) {
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
}

}  // namespace bsl
