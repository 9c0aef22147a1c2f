// The CPU as the device of a call, for bindings that serve CUDA devices too. They include
// "device.h", which their module finds in csrc/cpu or in csrc/cuda. Both have the same names.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "core/layout.h"
#include "cpu/isa.h"
#include "cpu/layout.h"
#include "cpu/memory.h"
#include "cpu/rows.h"

namespace bsl {

// Cuts a call over rows into chunks, which depend on the rows' length.
inline void cut_rows(PlannedShape& shape, int64_t width, Reduction reduction) {
  shape.plan = plan_rows(shape.numel, width > 0 ? width : 1, reduction);
}

// Likewise where each element has rows of parameters. It is as much work as dozens of other
// elements. `last` is the length of the last dimension.
inline void cut_elements(PlannedShape& shape, int64_t last, Reduction reduction) {
  shape.plan = ChunkPlan(shape.numel, last, reduction, 2 * kBlock);
}

// How many sums there are if each chunk has one.
inline int64_t n_sums(const PlannedShape& shape) { return shape.plan.n_chunks; }

// Gives a call memory for its partial sums. The memory lives as long as what this returns.
template <typename Call>
std::unique_ptr<double[]> add_partials(Call& a) {
  const int64_t n = a.shape.plan.n_partials();
  std::unique_ptr<double[]> partials(n > 0 ? new double[n] : nullptr);
  a.partials = partials.get();
  return partials;
}

class Device {
 public:
  // The name and the sizes are for errors of launches, see cuda/device.h.
  template <typename Call>
  void run(void (*kernel)(const Call&), const Call& call, const char*, const std::vector<int64_t>&,
           int64_t = 0) const {
    kernel(call);
  }
};

// Makes of a function of a device and its arguments the module's function, which takes the
// arguments alone.
template <typename R, typename... Args>
auto on_device(R (*f)(const Device&, Args...)) {
  return [f](Args... args) -> R { return f(Device(), std::forward<Args>(args)...); };
}

}  // namespace bsl
