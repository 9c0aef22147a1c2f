// Functions that the bindings of ops over rows share, on the CPU and on CUDA devices. The file that
// includes this one includes the RowKernels of either before.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/operands.h"
#include "core/rows.h"

namespace bsl {

// Maps the name of each op of a table to (index, the members of its signature, variants). Kinds are
// the numbers of Per.
template <typename Entries>
pybind11::dict describe_rows(const Entries& entries) {
  pybind11::dict ops;
  int index = 0;
  for (const auto& entry : entries) {
    const auto& kernels = entry.kernels();
    const RowSignature& s = kernels.signature;
    pybind11::list kinds;
    for (int i = 0; i < s.inputs; ++i) kinds.append(static_cast<int>(s.kinds[i]));
    ops[entry.name] = pybind11::make_tuple(index++, kinds, static_cast<int>(s.value), s.has_log,
                                           s.reduces, s.adds_up, s.longest, kernels.n_variants);
  }
  return ops;
}

// Fills in the part that all calls have, and returns the kernels of the variant.
template <typename Call, typename Entry>
const auto& start_rows(Call& a, const Entry& entry, int variant, const std::vector<int64_t>& sizes,
                       std::vector<PyOperand>& inputs, const std::vector<int64_t>& widths,
                       std::vector<PyOperand*> others, const std::vector<double>& numbers) {
  const auto& kernels = entry.kernels();
  const RowSignature& s = kernels.signature;
  bool fits = static_cast<int>(inputs.size()) == s.inputs && widths.size() == inputs.size() &&
              numbers.size() <= kMaxNumbers && variant >= 0 && variant < kernels.n_variants;
  // The first row, from whose length the others' follow.
  const size_t first = s.kinds[0] == Per::row ? 0 : 1;
  fits = fits && (s.longest == 0 || (widths[first] >= 1 && widths[first] <= s.longest));
  if (!fits) throw std::invalid_argument(std::string(entry.name) + ": not what its kernels take");
  for (PyOperand& input : inputs) others.push_back(&input);
  a.shape = make_shape(sizes, others);
  for (size_t i = 0; i < inputs.size(); ++i) {
    a.inputs[i] = inputs[i].operand;
    a.widths[i] = widths[i];
  }
  for (size_t i = 0; i < numbers.size(); ++i) a.numbers[i] = numbers[i];
  a.variant = variant;
  return kernels.variants[variant];
}

}  // namespace bsl
