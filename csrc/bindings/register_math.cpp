#include <pybind11/pybind11.h>

#include <string>

#include "cpu/math.h"

namespace py = pybind11;

namespace bsl {
namespace {

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

void register_math(py::module_& m) {
  m.def("math_apply", &math_apply, py::arg("name"), py::arg("is_double"), py::arg("x"),
        py::arg("y"), py::arg("n"));
}

}  // namespace bsl
