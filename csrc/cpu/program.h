// The kernels of programs (core/program.h).
#pragma once

#include <cstdint>

#include "core/program.h"
#include "cpu/isa.h"
#include "cpu/optimizer.h"

namespace bsl {

// Tensors are contiguous; T is the call's dtype.
template <typename T>
struct ProgramForward {
  const Program* program;
  int64_t rows;
  const T* const* parameters;
  const T* x;        // [rows, features]
  const T* context;  // [rows, context]
  T* value;          // [rows, features]; null: not wanted
  T* log;            // [rows]
};

template <typename T>
struct ProgramBackward {
  const Program* program;
  int64_t rows;
  const T* const* parameters;
  const T* x;
  const T* context;
  T* log;               // null: not wanted
  const T* grad_value;  // null: zeros
  const T* grad_log;    // null: zeros
  T* grad_x;            // null: not wanted
  T* grad_context;
  T* sums;             // room for the gradients of all parameters, [chunks, n_parameters]
  T* grad_parameters;  // [n_parameters]
  const bool* wanted;  // for each parameter, whether its gradient is
};

// Steps of an optimizer that maximises the logarithm, one mini-batch after the other.
template <typename T>
struct ProgramTraining {
  const Program* program;
  int64_t rows, batch_rows;  // of all mini-batches, and of each; the last one may have fewer
  const int64_t* order;      // [rows]: the rows of x that they are made of
  const T* x;
  const T* context;
  T* const* parameters;  // those that are wanted change
  const bool* wanted;
  T* const* means;         // what the optimizer remembers of each; null: nothing
  T* const* mean_squares;  // likewise
  OptimizerNumbers optimizer;
  double clip;          // what the norm of all gradients is at most; infinity: anything
  const double* rates;  // the learning rate of each step
  int64_t steps_before;
  T* sums;          // room for gradients, [most chunks, n_parameters]
  double* partial;  // room for program_training_parts numbers
  double* losses;   // for each step, the sum of its rows' negative logarithms
};

// Chunks of parameters in a step.
constexpr int64_t kTrainedParameters = 4096;
inline int64_t program_training_parts(int64_t n_parameters) {
  return (n_parameters + kTrainedParameters - 1) / kTrainedParameters;
}

struct ProgramKernels {
  // What is wrong with a step; null if it is well formed. Its lanes and parameters exist.
  const char* (*fault)(const Step& step, const Program& program);
  // Numbers of its own that a step needs while it works on a tile.
  int64_t (*scratch)(const Step& step);
  void (*forward_float)(const ProgramForward<float>& a);
  void (*forward_double)(const ProgramForward<double>& a);
  void (*backward_float)(const ProgramBackward<float>& a);
  void (*backward_double)(const ProgramBackward<double>& a);
  void (*train_float)(const ProgramTraining<float>& a);
  void (*train_double)(const ProgramTraining<double>& a);
};
BSL_DECLARE_KERNELS(ProgramKernels, program_kernels)

}  // namespace bsl
