// The extension module bslfast._native._cuda: launches over raw device addresses. Every function
// takes the handle of the CUDA stream to run on. The caller sets the current device.
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace bsl {

void register_noise(py::module_& m);
void register_normal_many(py::module_& m);
void register_pointwise(py::module_& m);
void register_rows(py::module_& m);
void register_softmax(py::module_& m);

}  // namespace bsl

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  bsl::register_noise(m);
  bsl::register_normal_many(m);
  bsl::register_pointwise(m);
  bsl::register_rows(m);
  bsl::register_softmax(m);
}
