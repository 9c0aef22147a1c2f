// Sums of what other kernels have written for every element, as pointwise ops add up theirs.
#include "cuda/pointwise_kernels.h"

namespace bsl {
namespace {

struct RowSums : Pointwise<1, kLog> {
  template <typename T>
  __device__ static Result<T> forward(const Numbers<T>&, T x) {
    return {T(0), x};
  }
  template <typename T>
  __device__ static Gradients<T, 1> backward(const Numbers<T>&, Result<T> grad, T) {
    return {{grad.log}};
  }
};

}  // namespace

namespace BSL_ISA {
extern const PointwiseKernels row_sums_kernels = pointwise_kernels<RowSums>();
}  // namespace BSL_ISA
}  // namespace bsl
