// Structs that arrive from Python as a tuple, so that a long list of arguments stands in one place.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <type_traits>

namespace bsl {

// A base of such a struct. It has a function each_member(f), which calls f(members...) with what is
// in the tuple.
struct FromTuple {};

}  // namespace bsl

namespace pybind11::detail {

template <typename T>
struct type_caster<T, std::enable_if_t<std::is_base_of_v<bsl::FromTuple, T>>> {
  PYBIND11_TYPE_CASTER(T, const_name("tuple"));

  bool load(handle source, bool) {
    if (!isinstance<tuple>(source)) return false;
    bool fits = false;
    value.each_member([&](auto&... members) {
      Py_ssize_t i = 0;
      const auto next = [&]() { return handle(PyTuple_GET_ITEM(source.ptr(), i++)); };
      fits = PyTuple_GET_SIZE(source.ptr()) == static_cast<Py_ssize_t>(sizeof...(members));
      if (fits) ((members = next().template cast<std::decay_t<decltype(members)>>()), ...);
    });
    return fits;
  }
};

}  // namespace pybind11::detail
