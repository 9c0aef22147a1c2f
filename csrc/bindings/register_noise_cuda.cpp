// Like register_noise.cpp. A call also has a CUDA stream, and its seed lies on the device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/launch.h"
#include "bindings/operands.h"
#include "cuda/noise.h"

namespace py = pybind11;

namespace bsl::cuda {
namespace {

// The shape `sizes` has at least one element.
void noise(bool normal, int dtype, const std::vector<int64_t>& sizes, uintptr_t seed,
           uint64_t stream, uintptr_t out, uintptr_t cuda_stream) {
  NoiseCall a{1, static_cast<const int64_t*>(pointer(seed)), stream, pointer(out)};
  for (const int64_t size : sizes) a.n *= size;
  py::gil_scoped_release release;
  (normal ? normal_kernels : uniform_kernels)[dtype](a, stream_of(cuda_stream));
  check_launch(normal ? "standard_normal" : "standard_uniform", sizes);
}

}  // namespace

void register_noise(py::module_& m) { m.def("noise", &noise); }

}  // namespace bsl::cuda
