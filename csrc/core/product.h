// Products with gradients.
#pragma once

#include "core/platform.h"

namespace bsl {
namespace {

// A gradient times a derivative. A gradient of 0 stays 0 even if the derivative is infinite or NaN.
// Else an element that a loss leaves out would make NaN of the whole gradient.
template <typename T>
BSL_HD T product(T gradient, T derivative) {
  return gradient == T(0) ? T(0) : gradient * derivative;
}

}  // namespace
}  // namespace bsl
