// Products with gradients.
#pragma once

#include "core/platform.h"

namespace bsl {
namespace {

// A gradient times a derivative. No gradient is none, whatever it is multiplied by: 0 * infinity is
// NaN, which would come through where a loss leaves an element out.
template <typename T>
BSL_HD T product(T gradient, T derivative) {
  return gradient == T(0) ? T(0) : gradient * derivative;
}

}  // namespace
}  // namespace bsl
