// Ops with a softmax: each row of x becomes a row or a number. They have a table of their own, as a
// small call takes 2 to 5 us longer by that of the other ops over rows.
#pragma once

#include "core/layout.h"

namespace bsl {

// A call on the CPU or on a CUDA device. All addresses are addresses of that device. All arrays
// but the gradient of numbers are contiguous. `S` is the shape of the rows, in the form in which
// kernels walk through it. What an op does not take is 0.
template <typename S>
struct SoftmaxCallOf {
  S shape;
  int64_t columns, inner;  // x is [rows / inner, columns, inner]
  int64_t x_rows;          // row r of the call is made of row r % x_rows of x
  const void* x;
  const int64_t* index;  // of each row a column
  const int64_t* seed;
  uint64_t stream;
  double number;  // what these two mean, the op's file says
  bool option;
};

template <typename S>
struct SoftmaxForwardOf : SoftmaxCallOf<S> {
  void* result;  // on CUDA devices numbers are not summed: there is one for each row
  Reduction reduction;
  double* partials;  // room for partial sums of the CPU's kernels
  int* invalid;      // set to 1 if an index is not a column, on the CPU
};

template <typename S>
struct SoftmaxBackwardOf : SoftmaxCallOf<S> {
  Operand grad;  // broadcast to the rows' shape if results are numbers
  void* grad_x;  // of every row of the call
};

}  // namespace bsl
