// The extension module bslfast._native._cuda: launches over raw device addresses. Every function
// takes the handle of the CUDA stream to run on and leaves the current device to the caller.
#include <pybind11/pybind11.h>

#include "bindings/launch.h"
#include "cuda/noise.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

// `seed_tensor` is the address of an int64 on the device, or 0: then `seed` counts.
void fill(NoiseKind kind, uintptr_t out, int64_t n, bool is_double, uintptr_t seed_tensor,
          uint64_t seed, uint64_t stream, uint64_t first, uintptr_t cuda_stream) {
  const NoiseRange range{n, seed, static_cast<const int64_t*>(pointer(seed_tensor)), stream, first};
  py::gil_scoped_release release;
  fill_noise(kind, pointer(out), is_double, range, stream_of(cuda_stream));
  const char* name = kind == NoiseKind::bits      ? "noise_bits"
                     : kind == NoiseKind::uniform ? "standard_uniform"
                                                  : "standard_normal";
  check_launch(name, {n});
}

void noise_bits(uintptr_t out, int64_t n, uintptr_t seed_tensor, uint64_t seed, uint64_t stream,
                uint64_t first, uintptr_t cuda_stream) {
  fill(NoiseKind::bits, out, n, false, seed_tensor, seed, stream, first, cuda_stream);
}

void noise_uniform(uintptr_t out, int64_t n, bool is_double, uintptr_t seed_tensor, uint64_t seed,
                   uint64_t stream, uint64_t first, uintptr_t cuda_stream) {
  fill(NoiseKind::uniform, out, n, is_double, seed_tensor, seed, stream, first, cuda_stream);
}

void noise_normal(uintptr_t out, int64_t n, bool is_double, uintptr_t seed_tensor, uint64_t seed,
                  uint64_t stream, uint64_t first, uintptr_t cuda_stream) {
  fill(NoiseKind::normal, out, n, is_double, seed_tensor, seed, stream, first, cuda_stream);
}

}  // namespace

void register_mixture(py::module_& m);
void register_pointwise(py::module_& m);
void register_rank_one(py::module_& m);
void register_rational_quadratic(py::module_& m);
void register_softmax(py::module_& m);

}  // namespace bsl::cuda

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  using namespace bsl::cuda;
  m.def("noise_bits", &noise_bits, py::arg("out"), py::arg("n"), py::arg("seed_tensor"),
        py::arg("seed"), py::arg("stream"), py::arg("first"), py::arg("cuda_stream"));
  m.def("noise_uniform", &noise_uniform, py::arg("out"), py::arg("n"), py::arg("is_double"),
        py::arg("seed_tensor"), py::arg("seed"), py::arg("stream"), py::arg("first"),
        py::arg("cuda_stream"));
  m.def("noise_normal", &noise_normal, py::arg("out"), py::arg("n"), py::arg("is_double"),
        py::arg("seed_tensor"), py::arg("seed"), py::arg("stream"), py::arg("first"),
        py::arg("cuda_stream"));
  register_mixture(m);
  register_pointwise(m);
  register_rank_one(m);
  register_rational_quadratic(m);
  register_softmax(m);
}
