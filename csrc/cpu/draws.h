// The weights of a program that are drawn (core/program.h).
#pragma once

#include <cstdint>

#include "core/program.h"

namespace bsl {

template <typename T>
struct Draws {
  T* const* parameters;     // the program's table; samples are written
  const bool* wanted;       // of each parameter, whether its gradient is
  const uint64_t* seeds;    // [draws]
  const uint64_t* streams;  // likewise
};

// Draws n_samples of all weights, each [n_samples, *shape of the loc], and adds their divergences
// to `kl`, which may be null.
template <typename T>
void draw_weights(const Program& p, const Draws<T>& draws, int64_t n_samples, double* kl);

// Fills in the gradients of what the weights are drawn from, in the row of all. Those of samples
// are there, in the places of their locs', and that of the divergence is a number.
template <typename T>
void pull_back_weights(const Program& p, const Draws<T>& draws, T* grads, double grad_kl);

}  // namespace bsl
