// The kernels of programs (core/program.h).
#pragma once

#include <cstdint>

#include "core/program.h"
#include "cpu/isa.h"
#include "cpu/optimizer.h"

namespace bsl {

// Tensors are contiguous; T is the call's dtype. `parameters` has the addresses of a program's
// table. The rows are `samples` of each of some examples: an example has a row of the context, and
// x and what comes of it are [samples, examples, ...]. With one sample, rows are examples.
template <typename T>
struct ProgramForward {
  const Program* program;
  int64_t rows, samples;
  int64_t draws;               // of all weights; the same x for each
  const T* const* parameters;  // [draws, parameters]
  const uint64_t* seeds;       // as many as the program says
  const uint64_t* streams;     // likewise
  const T* x;                  // [rows, features]
  const T* context;            // [examples, context]
  T* value;                    // [draws, rows, results]; null: not wanted
  T* log;                      // [draws, rows]; null: not wanted
};

template <typename T>
struct ProgramBackward {
  const Program* program;
  int64_t rows, samples;
  const T* const* parameters;
  const uint64_t* seeds;
  const uint64_t* streams;
  const T* x;
  const T* context;
  T* log;               // null: not wanted
  const T* grad_value;  // null: zeros
  const T* grad_log;    // null: that of each is `grad_each`
  T grad_each;
  // Null: gradients are those of the logarithms, and rows are examples. Else of the bound
  // log(mean(exp(log + added))) of each example, a mean over its samples: `grad_log` is [examples],
  // `added` is [samples, examples], and x alone of rows has a gradient.
  const T* added;
  T* bound;    // [examples]
  T* weights;  // like `added`: exp(log + added) over its sum
  T* grad_x;   // null: not wanted
  T* grad_context;
  T* sums;             // for more chunks than one: room for gradients, [chunks, n_gradients]
  T* grad_parameters;  // [n_gradients], of which steps give the first n_parameters
  const bool* wanted;  // for each parameter, whether its gradient is
};

// The bounds of a backward pass, from the logarithms that a forward pass gave.
template <typename T>
struct ProgramBounds {
  int64_t samples, examples;
  const T* log;    // [samples, examples]
  const T* added;  // likewise
  T* bound;        // [examples]
  T* weights;      // [samples, examples]
};

// Steps of an optimizer that maximises the logarithm, less a divergence of the weights that are
// drawn for each step, one mini-batch after the other.
template <typename T>
struct ProgramTraining {
  const Program* program;
  int64_t rows, batch_rows;  // of all mini-batches, and of each; the last one may have fewer
  const int64_t* order;      // [rows]: the rows of x that they are made of
  const T* x;
  const T* context;
  T* const* parameters;  // tensors that are wanted change
  const bool* wanted;
  T* const* means;         // what the optimizer remembers of each; null: nothing
  T* const* mean_squares;  // likewise
  OptimizerNumbers optimizer;
  const double* weight_decays;  // of each parameter
  double clip;                  // what the norm of all gradients is at most; infinity: anything
  const double* rates;          // the learning rate of each step
  int64_t steps_before;
  const uint64_t* seeds;     // [steps, seeds]
  const uint64_t* streams;   // [seeds]
  const double* kl_weights;  // the factor of the divergence in each step's loss
  T* factors;                // room for the draws: 3 n_drawn numbers
  double* draw_partial;      // likewise: training_draw_shares
  T* sums;                   // room for gradients, [most chunks, n_gradients]
  double* partial;           // room for program_training_parts numbers
  double* losses;            // for each step, the sum of its rows' negative logarithms
  double* divergences;       // for each step, the sum of those of all weights and rows
};

namespace {

// Chunks of parameters in a step.
constexpr int64_t kTrainedParameters = 4096;
inline int64_t program_training_parts(int64_t n_gradients) {
  return (n_gradients + kTrainedParameters - 1) / kTrainedParameters;
}

// Numbers of a tensor of weights that a thread draws at a time.
constexpr int64_t kDrawShare = 4096;
inline int64_t draw_shares(const Program& p, size_t draw) {
  return (p.sizes[p.tensors() + draw] + kDrawShare - 1) / kDrawShare;
}
inline int64_t training_draw_shares(const Program& p) {
  int64_t shares = 0;
  for (size_t i = 0; i < p.draws.size(); ++i) shares += draw_shares(p, i);
  return shares;
}

}  // namespace

struct ProgramKernels {
  // What is wrong with a step; null if it is well formed. Its lanes and parameters exist.
  const char* (*fault)(const Step& step, const Program& program);
  // Whether a step writes all of the gradient of a parameter, if no other step reads it.
  bool (*fills)(const Step& step, int32_t parameter, const Program& program);
  // How many weights groups of tiles would share in a dense layer, see cpu/run_steps.h: none in a
  // masked one, as threads would have unequal parts of it. -1 for other steps.
  int64_t (*shared)(const Step& step);
  // Numbers of its own that a step needs while it works on a tile.
  int64_t (*scratch)(const Step& step);
  void (*forward_float)(const ProgramForward<float>& a);
  void (*forward_double)(const ProgramForward<double>& a);
  void (*backward_float)(const ProgramBackward<float>& a);
  void (*backward_double)(const ProgramBackward<double>& a);
  void (*bounds_float)(const ProgramBounds<float>& a);
  void (*bounds_double)(const ProgramBounds<double>& a);
  void (*train_float)(const ProgramTraining<float>& a);
  void (*train_double)(const ProgramTraining<double>& a);
};
BSL_DECLARE_KERNELS(ProgramKernels, program_kernels)

}  // namespace bsl
