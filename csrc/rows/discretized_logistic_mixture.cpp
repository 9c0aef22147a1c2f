#include "core/distributions/discretized_logistic.h"

#include "mixture_kernels.h"  // of cpu/ or of cuda/

namespace bsl {
namespace {

struct Density : discretized_logistic::LogProb {
  template <typename T>
  BSL_HD static T log_distance(const Numbers<T>& numbers, T x, T loc, T log_scale) {
    return discretized_logistic::log_distance(numbers, x, loc, log_scale);
  }
};

}  // namespace

namespace BSL_ISA {
extern const RowKernels discretized_logistic_mixture_log_prob_kernels = mixture_kernels<Density>();
}  // namespace BSL_ISA
}  // namespace bsl
