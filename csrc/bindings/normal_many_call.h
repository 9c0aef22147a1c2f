// What all bindings of normal_rsample_kl_many take, on the CPU and on CUDA devices.
#pragma once

#include <vector>

#include "bindings/from_tuple.h"
#include "bindings/operands.h"

namespace bsl {

using Addresses = std::vector<uintptr_t>;

// A call on contiguous tensors, of which each has an entry in all lists.
struct NormalManyCall : FromTuple {
  int dtype, parametrization;
  std::vector<int64_t> sizes;
  Addresses loc, raw_scale;
  std::vector<double> prior_loc, prior_scale;
  uintptr_t seed;
  uint64_t stream;

  template <typename F>
  void each_member(const F& f) {
    f(dtype, parametrization, sizes, loc, raw_scale, prior_loc, prior_scale, seed, stream);
  }
};

}  // namespace bsl
