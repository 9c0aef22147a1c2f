// What a step of a program (core/program.h) sees of the tile that it works on.
//
// A step is a struct in a file of this folder, named like its kind, with
//
//   static const char* fault(const Step& step, const Program& program);  // null: it is well formed
//   static int64_t scratch(const Step& step);                   // numbers of its own
//   template <typename T>
//   static void forward(const Step& step, const TileOf<T>& t);  // from its inputs to its outputs
//   template <typename T>
//   static void backward(const Step& step, const TileOf<T>& t);  // adds to the inputs' gradients
//
// A gradient is added to, as a lane may have several readers. That of a parameter is written where
// it is fresh, by a step that fills it (Dense::fills).
#pragma once

#include "core/platform.h"
#include "core/program.h"

namespace bsl {
namespace {

template <typename T>
struct TileOf {
  T* values;  // [lanes][kTileRows]
  T* grads;   // likewise; in backward
  double* log;
  double* divergence;  // what part of the logarithm a divergence is, without its factor
  T* grad_log;
  const T* const* parameters;
  T* grad_parameters;  // the row of all
  const bool* wanted;
  const int64_t* places;
  const bool* fresh;  // for each parameter, whether its gradient is to be written; null: for none
  T* scratch;
  int32_t first_needed;     // lanes before it are data whose gradients nobody needs
  const uint64_t* seeds;    // of the call, after those of the draws
  const uint64_t* streams;  // likewise
  int64_t first;            // the place of the first row among those of the call
  int rows;                 // those beyond are copies, and their gradients are zeros

  T* lane(int32_t index) const { return values + static_cast<int64_t>(index) * kTileRows; }
  T* grad(int32_t index) const { return grads + static_cast<int64_t>(index) * kTileRows; }

  // Whether the gradients of some lanes are needed.
  bool needs(const int32_t* lanes, int n) const {
    for (int i = 0; i < n; ++i) {
      if (lanes[i] >= first_needed) return true;
    }
    return false;
  }

  const T* parameter(int32_t index) const { return index < 0 ? nullptr : parameters[index]; }
  // Null if it is not wanted.
  T* grad_parameter(int32_t index) const {
    return index < 0 || !wanted[index] ? nullptr : grad_parameters + places[index];
  }
  // Whether that has no value yet. Else it is added to.
  bool is_fresh(int32_t index) const { return fresh != nullptr && fresh[index]; }
};

}  // namespace
}  // namespace bsl
