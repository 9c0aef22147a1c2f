// The extension module bslfast._native._cpu: kernels over raw addresses, instruction sets, threads.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/names.h"
#include "bindings/operands.h"
#include "core/bijectors/affine_coupling.h"
#include "core/bijectors/rational_quadratic.h"
#include "core/distributions/normal_mc_kl.h"
#include "core/distributions/scale.h"
#include "core/layout.h"
#include "cpu/isa.h"
#include "cpu/layout.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace bsl {

void register_math(py::module_& m);
void register_multivariate_normal(py::module_& m);
void register_noise(py::module_& m);
void register_normal_many(py::module_& m);
void register_pointwise(py::module_& m);
void register_program(py::module_& m);
void register_rows(py::module_& m);
void register_softmax(py::module_& m);
void register_tensors(py::module_& m);

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

// How many more slopes than bins a spline has, for each kind of tails.
py::dict extra_slopes() {
  py::dict found;
  int tails = 0;
  for (const char* name : kTailsNames) {
    found[py::cast(name)] = n_slopes(0, static_cast<Tails>(tails++));
  }
  return found;
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
  m.attr("DTYPES") = bsl::tuple_of(bsl::kDTypeNames);
  m.attr("REDUCTIONS") = bsl::tuple_of(bsl::kReductionNames);
  m.attr("PARAMETRIZATIONS") = bsl::tuple_of(bsl::kParametrizationNames);
  m.attr("PRIORS") = bsl::tuple_of(bsl::normal::Priors::names);
  m.attr("SCALE_FNS") = bsl::tuple_of(bsl::kScaleFnNames);
  m.attr("EXTRA_SLOPES") = bsl::extra_slopes();
  m.attr("MAX_DIMS") = bsl::kMaxDims;
  m.attr("BLOCK") = bsl::kBlock;
  bsl::register_math(m);
  bsl::register_multivariate_normal(m);
  bsl::register_noise(m);
  bsl::register_normal_many(m);
  bsl::register_pointwise(m);
  bsl::register_program(m);
  bsl::register_rows(m);
  bsl::register_softmax(m);
  bsl::register_tensors(m);
}
