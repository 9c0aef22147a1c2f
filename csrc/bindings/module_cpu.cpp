// The extension module bslfast._native._cpu: kernels over raw addresses, instruction sets, threads.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace bsl {

void register_categorical(py::module_& m);
void register_gumbel_softmax(py::module_& m);
void register_importance(py::module_& m);
void register_math(py::module_& m);
void register_mixture(py::module_& m);
void register_noise(py::module_& m);
void register_normal(py::module_& m);
void register_pointwise(py::module_& m);
void register_rank_one(py::module_& m);
void register_rational_quadratic(py::module_& m);

namespace {

struct NamedIsa {
  const char* name;
  Isa isa;
};
constexpr NamedIsa kIsas[] = {
    {"baseline", Isa::baseline},
    {"avx2", Isa::avx2},
    {"avx512", Isa::avx512},
};

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const NamedIsa& level : kIsas) {
    if (isa_available(level.isa)) names.emplace_back(level.name);
  }
  return names;
}

std::string isa() {
  for (const NamedIsa& level : kIsas) {
    if (level.isa == active_isa()) return level.name;
  }
  return "";
}

void set_isa(const std::string& name) {
  for (const NamedIsa& level : kIsas) {
    if (name == level.name && isa_available(level.isa)) {
      set_active_isa(level.isa);
      return;
    }
  }
  std::string known;
  for (const std::string& level : isa_levels()) known += (known.empty() ? "" : ", ") + level;
  throw py::value_error("isa: expected one of " + known +
                        " (what this build and this machine have), got '" + name + "'");
}

}  // namespace
}  // namespace bsl

PYBIND11_MODULE(_cpu, m, py::mod_gil_not_used()) {
  m.def("isa_levels", &bsl::isa_levels);
  m.def("isa", &bsl::isa);
  m.def("set_isa", &bsl::set_isa, py::arg("name"));
  m.def("set_torch_parallel_for", [](uintptr_t address) {
    bsl::set_torch_parallel_for(reinterpret_cast<bsl::TorchParallelFor>(address));
  });
  m.def("has_torch_threads", &bsl::has_torch_threads);
  bsl::register_math(m);
  bsl::register_mixture(m);
  bsl::register_noise(m);
  bsl::register_normal(m);
  bsl::register_pointwise(m);
  bsl::register_rational_quadratic(m);
  bsl::register_categorical(m);
  bsl::register_importance(m);
  bsl::register_gumbel_softmax(m);
  bsl::register_rank_one(m);
}
