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
#include "cpu/math.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace bsl {

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

struct NamedFunction {
  const char* name;
  MathFunction function;
};
constexpr NamedFunction kFunctions[] = {
    {"exp", MathFunction::exp},
    {"expm1", MathFunction::expm1},
    {"log", MathFunction::log},
    {"log1p", MathFunction::log1p},
    {"sigmoid", MathFunction::sigmoid},
    {"softplus", MathFunction::softplus},
    {"tanh", MathFunction::tanh},
    {"sinpi", MathFunction::sinpi},
    {"cospi", MathFunction::cospi},
    {"log_factorial", MathFunction::log_factorial},
    {"digamma_of_next", MathFunction::digamma_of_next},
    {"log_gamma_half_step", MathFunction::log_gamma_half_step},
    {"log_gamma_half_step_slope", MathFunction::log_gamma_half_step_slope},
    {"log_one_plus_square", MathFunction::log_one_plus_square},
};

void math_apply(const std::string& name, bool is_double, uintptr_t x, uintptr_t y, int64_t n) {
  for (const NamedFunction& named : kFunctions) {
    if (name != named.name) continue;
    py::gil_scoped_release release;
    if (is_double) {
      BSL_SELECT(math_kernels)
          .apply_double(named.function, reinterpret_cast<const double*>(x),
                        reinterpret_cast<double*>(y), n);
    } else {
      BSL_SELECT(math_kernels)
          .apply_float(named.function, reinterpret_cast<const float*>(x),
                       reinterpret_cast<float*>(y), n);
    }
    return;
  }
  throw py::value_error("name: no such function: '" + name + "'");
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
  m.def("math_apply", &bsl::math_apply, py::arg("name"), py::arg("is_double"), py::arg("x"),
        py::arg("y"), py::arg("n"));
  m.attr("DTYPES") = bsl::tuple_of(bsl::kDTypeNames);
  m.attr("REDUCTIONS") = bsl::tuple_of(bsl::kReductionNames);
  m.attr("PARAMETRIZATIONS") = bsl::tuple_of(bsl::kParametrizationNames);
  m.attr("PRIORS") = bsl::tuple_of(bsl::normal::Priors::names);
  m.attr("SCALE_FNS") = bsl::tuple_of(bsl::kScaleFnNames);
  m.attr("EXTRA_SLOPES") = bsl::extra_slopes();
  m.attr("MAX_DIMS") = bsl::kMaxDims;
  m.attr("BLOCK") = bsl::kBlock;
  bsl::register_multivariate_normal(m);
  bsl::register_noise(m);
  bsl::register_normal_many(m);
  bsl::register_pointwise(m);
  bsl::register_program(m);
  bsl::register_rows(m);
  bsl::register_softmax(m);
  bsl::register_tensors(m);
}
