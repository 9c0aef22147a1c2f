// Names that the modules have for what C++ knows by an enum or a table.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>

namespace bsl {

// A name's place is the number in C++. A null pointer becomes None.
template <size_t N>
pybind11::tuple tuple_of(const char* const (&names)[N]) {
  pybind11::tuple result(N);
  for (size_t i = 0; i < N; ++i) result[i] = names[i];
  return result;
}

}  // namespace bsl
