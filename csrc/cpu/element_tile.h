// Tiles of ops that take a number and rows of parameters for each element, whatever their type (see
// cpu/element_kernels.h). A tile's code exists once, and serves both its op and programs.
#pragma once

#include "cpu/rows.h"

namespace bsl {

// The type of a tile, as functions of its address.
template <typename T>
struct ElementTile {
  int operands;
  // Makes a tile for a call, and calls use(tile, context).
  void (*with_tile)(const ElementCall& call, void (*use)(void* tile, void* context), void* context);
  void (*load)(void* tile, const T* x, const T* const* lanes);
  void (*map)(void* tile, T* value, T* log);
  int (*invalid)(void* tile);
  void (*gradients)(void* tile, const T* by_value, const T* by_log, T* by_x);
  const T* (*gradient)(void* tile, int operand);
};

namespace BSL_ISA {
// Run an op by its tiles: see cpu/elements.cpp.
void run_elements(const RowForward& call, const ElementTile<float>& type);
void run_elements(const RowForward& call, const ElementTile<double>& type);
void run_elements(const RowBackward& call, const ElementTile<float>& type);
void run_elements(const RowBackward& call, const ElementTile<double>& type);
}  // namespace BSL_ISA

namespace {

// Calls f(tile) with a tile for a call.
template <typename T, typename F>
void with_tile(const ElementTile<T>& type, const ElementCall& call, const F& f) {
  type.with_tile(
      call, [](void* tile, void* context) { (*static_cast<const F*>(context))(tile); },
      const_cast<F*>(&f));
}

}  // namespace
}  // namespace bsl
