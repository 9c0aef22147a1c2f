// Functions that the bindings of pointwise ops share, on the CPU and on CUDA devices. The file that
// includes this one includes the PointwiseKernels of either before.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/operands.h"
#include "core/pointwise.h"

namespace bsl {

// Maps the name of each op of a table to (index, number of tensors, has values, has logarithms,
// draws, takes a number of samples, passes_on of each variant).
template <typename Entries>
pybind11::dict describe_ops(const Entries& entries) {
  pybind11::dict ops;
  int index = 0;
  for (const auto& entry : entries) {
    const auto& kernels = entry.kernels();
    pybind11::list passes_on;
    for (int i = 0; i < kernels.n_variants; ++i) passes_on.append(kernels.variants[i].passes_on);
    ops[entry.name] = pybind11::make_tuple(
        index++, kernels.inputs, (kernels.results & kValue) != 0, (kernels.results & kLog) != 0,
        kernels.noise != Noise::none, kernels.samples, passes_on);
  }
  return ops;
}

// Fills in the part that all calls have, and returns the kernels of the variant.
template <typename Call, typename Entry>
const auto& start(Call& a, const Entry& entry, int variant, const DType& dtype,
                  const std::vector<int64_t>& sizes, std::vector<PyOperand>& inputs,
                  std::vector<PyOperand*> others, const std::vector<double>& numbers) {
  const auto& kernels = entry.kernels();
  if (static_cast<int>(inputs.size()) != kernels.inputs || numbers.size() > kMaxNumbers ||
      variant < 0 || variant >= kernels.n_variants) {
    throw std::invalid_argument(std::string(entry.name) + ": not what its kernels take");
  }
  for (PyOperand& input : inputs) others.push_back(&input);
  a.shape = make_shape(sizes, others, dtype.storage);
  for (size_t i = 0; i < inputs.size(); ++i) a.inputs[i] = inputs[i].operand;
  for (size_t i = 0; i < numbers.size(); ++i) a.numbers[i] = numbers[i];
  return kernels.variants[variant];
}

}  // namespace bsl
