// Ops over rows. Each element of a call has a row of contiguous numbers of some tensors, and one
// number of others. There are two kinds.
//
// A RowMap makes of a row another one of the same length, and a logarithm. It walks over the
// columns twice. An op is a type such as
//
//   struct Planar : RowMap<3, 1> {                          // three rows and a number
//     static constexpr int sums = 3, sums_with_gradient = 5, coefficients = 5;
//     template <int I> static constexpr bool of_parameters;  // sum I leaves the first row out
//     template <int I, typename T>                           // what a column adds to sum I
//     BSL_HD static double term(const Column<T, 3>& c);
//     template <typename T>                                  // the logarithm, and coefficients
//     BSL_HD static RowResult<T> forward(const Sums& s, const RowNumbers<T>& numbers, T width);
//     template <typename T>                                  // a number of the result
//     BSL_HD static T value(const Coefficients<T>& by, const Column<T, 3>& c);
//     template <typename T>                                  // gradients of the numbers, likewise
//     BSL_HD static RowGradients<T> backward(const Sums& s, const RowNumbers<T>& numbers, T width,
//                                            T grad_log);
//     template <int I, typename T>                           // the gradient of a number of row I
//     BSL_HD static T gradient(const Coefficients<T>& by, const Column<T, 3>& c);
//   };
//
// The kernels around it are made by cpu/row_kernels.h and cuda/row_kernels.h.
//
// The other kind makes a number and a logarithm of a number and rows of parameters: see
// cpu/element_kernels.h and cuda/element_kernels.h. The density of a mixture belongs to it. The op
// is then the density of a component:
//
//   struct Density : Pointwise<3, kLog> {  // of x and two parameters, with forward and backward
//     template <typename T>                // how far x is from the component, for where no weight
//     BSL_HD static T log_distance(...);   // is above 0; takes what forward takes
//   };
#pragma once

#include "core/layout.h"
#include "core/platform.h"
#include "core/pointwise.h"

namespace bsl {

constexpr int kMaxRowInputs = 4;

// How many numbers of a tensor, or of the op's value, an element of a call has.
enum class Per { nothing, number, row };
// The names that Python uses.
constexpr const char* kPerNames[] = {"nothing", "number", "row"};

// The entry of an op in the table that Python reads.
struct RowSignature {
  int inputs;
  Per kinds[kMaxRowInputs];  // in the order of the op's tensors
  Per value;                 // a row is as long as the first one
  bool has_log;
  bool reduces;  // whether logarithms are summed over elements
  // Whether the kernels add up the gradient of a row that serves all elements. Not that of the
  // first tensor.
  bool adds_up;
  int longest;  // the longest rows; 0 if they may have any length
};

// A call on the CPU or on a CUDA device. All addresses are addresses of that device. `S` is the
// elements' shape, in the form in which kernels walk through it.
template <typename S>
struct RowCall {
  S shape;
  Operand inputs[kMaxRowInputs];  // strides of rows: those from row to row over `shape`
  int64_t widths[kMaxRowInputs];  // how long rows are
  double numbers[kMaxNumbers];
  int variant;
};

template <typename S>
struct RowForwardOf : RowCall<S> {
  void* value;  // null: none
  void* log;    // on CUDA devices one for every element
  Reduction reduction;
  double* partials;  // room for partial sums of the CPU's kernels
  int* invalid;      // gets the bits of inputs that are outside their domain, on the CPU
};

template <typename S>
struct RowBackwardOf : RowCall<S> {
  Operand grad_value, grad_log;  // broadcast to the call's shape
  void* grads[kMaxRowInputs];    // one number or one contiguous row per element; null: not wanted
  // The gradient of a row that serves all elements goes here instead: a sum for each chunk of
  // elements, [row_chunks(), width].
  double* sums[kMaxRowInputs];
  void* coefficients;  // with `sums` on CUDA devices: room for kMaxCoefficients numbers per element
};

constexpr int kMaxSums = 5;
constexpr int kMaxCoefficients = 5;
constexpr int kMaxRowNumbers = 2;

namespace {

template <int Rows, int Numbers>
struct RowMap {
  static constexpr int rows = Rows, numbers = Numbers;
};

// A column of an op's rows, and of the gradient of its value.
template <typename T, int Rows>
struct Column {
  T row[Rows];
  T grad;
};

// Sums are float64 for any T, as a sum may be much smaller than its terms.
struct Sums {
  double of[kMaxSums];
};

template <typename T>
struct RowNumbers {
  T of[kMaxRowNumbers];
};

// The numbers of a row that the functions of its columns need.
template <typename T>
struct Coefficients {
  T of[kMaxCoefficients];
};

template <typename T>
struct RowResult {
  T log;
  Coefficients<T> by;
};

template <typename T>
struct RowGradients {
  RowNumbers<T> numbers;
  Coefficients<T> by;
};

// The signature of an op of a number and rows of parameters.
constexpr RowSignature element_signature(int rows, bool has_value, int longest) {
  RowSignature s = {1 + rows, {},     has_value ? Per::number : Per::nothing, true, true,
                    false,    longest};
  for (int i = 0; i < s.inputs; ++i) s.kinds[i] = i == 0 ? Per::number : Per::row;
  return s;
}

template <typename Op>
constexpr RowSignature row_map_signature() {
  RowSignature s = {Op::rows + Op::numbers, {}, Per::row, true, false, true, 0};
  for (int i = 0; i < s.inputs; ++i) s.kinds[i] = i < Op::rows ? Per::row : Per::number;
  return s;
}

}  // namespace
}  // namespace bsl
