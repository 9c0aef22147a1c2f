// The kernels of programs (core/program.h).
#pragma once

#include <cstdint>

#include "core/program.h"
#include "cpu/isa.h"

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

struct ProgramKernels {
  // What is wrong with a step; null if it is well formed. Its lanes and parameters exist.
  const char* (*fault)(const Step& step, const Program& program);
  // Numbers of its own that a step needs while it works on a tile.
  int64_t (*scratch)(const Step& step);
  void (*forward_float)(const ProgramForward<float>& a);
  void (*forward_double)(const ProgramForward<double>& a);
  void (*backward_float)(const ProgramBackward<float>& a);
  void (*backward_double)(const ProgramBackward<double>& a);
};
BSL_DECLARE_KERNELS(ProgramKernels, program_kernels)

}  // namespace bsl
