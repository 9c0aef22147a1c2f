// Arrays of random numbers, on the CPU and on CUDA devices.
#include <pybind11/pybind11.h>

#include "bindings/operands.h"
#include "bindings/tensors.h"
#include "core/philox.h"
#include "device.h"  // of cpu/ or of cuda/
#include "noise.h"   // of cpu/ or of cuda/

namespace py = pybind11;

namespace bsl {
namespace {

#ifndef BSL_CUDA
// --- On the CPU ---

void noise_bits(uintptr_t out, int64_t n, uint64_t seed, uint64_t stream, uint64_t first) {
  py::gil_scoped_release release;
  BSL_SELECT(noise_kernels).bits(reinterpret_cast<uint32_t*>(out), {n, seed, stream, first});
}

void noise_uniform(uintptr_t out, int64_t n, bool is_double, uint64_t seed, uint64_t stream,
                   uint64_t first) {
  py::gil_scoped_release release;
  const NoiseRange range{n, seed, stream, first};
  if (is_double) {
    BSL_SELECT(noise_kernels).uniform_double(reinterpret_cast<double*>(out), range);
  } else {
    BSL_SELECT(noise_kernels).uniform_float(reinterpret_cast<float*>(out), range);
  }
}

void noise_normal(uintptr_t out, int64_t n, bool is_double, uint64_t seed, uint64_t stream,
                  uint64_t first) {
  py::gil_scoped_release release;
  const NoiseRange range{n, seed, stream, first};
  if (is_double) {
    BSL_SELECT(noise_kernels).normal_double(reinterpret_cast<double*>(out), range);
  } else {
    BSL_SELECT(noise_kernels).normal_float(reinterpret_cast<float*>(out), range);
  }
}

template <typename T>
bool any_negative(const PlainNumbers& numbers) {
  const T* const x = static_cast<const T*>(numbers.data);
  bool found = false;
  for (int64_t i = 0; i < numbers.numel; ++i) found |= x[i] < T(0);
  return found;
}

// Fills `out` with normal numbers for few samples of a scale, unless some of the scale is negative.
// Returns whether it did. The GIL is held, as to wake another thread takes longer.
bool draw_few_normals(py::handle out, py::handle scale, uintptr_t seed, uint64_t stream) {
  const PlainNumbers to = plain_numbers(out), given = plain_numbers(scale);
  if (given.is_double ? any_negative<double>(given) : any_negative<float>(given)) return false;
  const NoiseRange range{to.numel, read_seed(seed), stream, 0};
  if (to.is_double) {
    BSL_SELECT(noise_kernels).normal_double(static_cast<double*>(to.data), range);
  } else {
    BSL_SELECT(noise_kernels).normal_float(static_cast<float*>(to.data), range);
  }
  return true;
}

// One counter by the scalar function that CUDA uses too.
py::tuple philox4x32_words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t key0,
                           uint32_t key1) {
  philox4x32(c0, c1, c2, c3, key0, key1);
  return py::make_tuple(c0, c1, c2, c3);
}

#else
// --- On CUDA devices ---

// The seed lies on the device. The shape `sizes` has at least one element.
void noise(const Device& device, bool normal, int dtype, const std::vector<int64_t>& sizes,
           uintptr_t seed, uint64_t stream, uintptr_t out) {
  NoiseCall a{1, static_cast<const int64_t*>(pointer(seed)), stream, pointer(out)};
  for (const int64_t size : sizes) a.n *= size;
  py::gil_scoped_release release;
  device.run((normal ? cuda::normal_kernels : cuda::uniform_kernels)[dtype], a,
             normal ? "standard_normal" : "standard_uniform", sizes);
}

#endif
}  // namespace

void register_noise(py::module_& m) {
#ifndef BSL_CUDA
  m.def("philox4x32", &philox4x32_words, py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"),
        py::arg("key0"), py::arg("key1"));
  m.def("noise_bits", &noise_bits, py::arg("out"), py::arg("n"), py::arg("seed"), py::arg("stream"),
        py::arg("first"));
  m.def("noise_uniform", &noise_uniform, py::arg("out"), py::arg("n"), py::arg("is_double"),
        py::arg("seed"), py::arg("stream"), py::arg("first"));
  m.def("noise_normal", &noise_normal, py::arg("out"), py::arg("n"), py::arg("is_double"),
        py::arg("seed"), py::arg("stream"), py::arg("first"));
  m.def("draw_few_normals", &draw_few_normals);
#else
  m.def("noise", on_device(&noise));
#endif
}

}  // namespace bsl
