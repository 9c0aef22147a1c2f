#include "cpu/normal_many.h"

#include <cstring>
#include <memory>

#include "cpu/memory.h"
#include "cpu/pointwise.h"

namespace bsl {
namespace {

Operand contiguous(const void* data, Storage storage) {
  Operand operand;
  operand.kind = data == nullptr ? Operand::Kind::absent : Operand::Kind::contiguous;
  operand.storage = storage;
  operand.data = data;
  return operand;
}

int64_t bytes_of(const NormalTensor& t) {
  const int64_t native = t.is_double ? 8 : 4;
  return t.size * (t.storage == Storage::native ? native : 2);
}

// The kernels for the sample, the divergence, or both. At least one of the two is wanted.
const PointwiseVariant& kernels_of(bool sample, bool kl, int parametrization) {
  const PointwiseKernels& kernels = !kl       ? BSL_SELECT(normal_rsample_kernels)
                                    : !sample ? BSL_SELECT(normal_kl_fixed_prior_kernels)
                                              : BSL_SELECT(normal_rsample_kl_fixed_prior_kernels);
  return kernels.variants[parametrization];
}

// Fills in the arguments that forward and backward share.
template <typename Call>
void start(const NormalTensor& t, Call& a) {
  a.shape.numel = t.size;
  if (t.size != 1) a.shape.sizes[a.shape.ndim++] = t.size;
  a.inputs[0] = contiguous(t.loc, t.storage);
  a.inputs[1] = contiguous(t.raw_scale, t.storage);
  a.numbers[0] = t.prior_loc;
  a.numbers[1] = t.prior_scale;
  a.seed = t.seed;
  a.stream = t.stream;
}

}  // namespace

bool draw_normal(const NormalTensor& t, int64_t n_samples, void* samples, double* kl) {
  if (t.size == 0 || (samples == nullptr && kl == nullptr)) return true;
  union {
    double wide;
    float narrow;
  } divergence = {0.0};
  int invalid = 0;
  PointwiseForward a{};
  start(t, a);
  a.n_samples = n_samples;
  a.storage = t.storage;
  a.reduction = kl == nullptr ? Reduction::none : Reduction::sum;
  a.value = samples;
  a.log = kl == nullptr ? nullptr : &divergence;
  a.invalid = &invalid;
  a.plan = ChunkPlan(t.size, t.size, a.reduction);
  const std::unique_ptr<double[]> partials(new double[a.plan.n_partials()]);
  a.partials = a.plan.n_partials() > 0 ? partials.get() : nullptr;
  expect_writes(a.value, n_samples * bytes_of(t));
  const PointwiseVariant& kernels =
      kernels_of(samples != nullptr, kl != nullptr, t.parametrization);
  (t.is_double ? kernels.forward_double : kernels.forward_float)(a);
  if (kl != nullptr) {
    *kl += t.is_double ? divergence.wide : static_cast<double>(divergence.narrow);
  }
  return invalid == 0;
}

void pull_back_normal(const NormalTensor& t, const void* grad_sample, const double* grad_kl,
                      void* grad_loc, void* grad_raw_scale) {
  if (t.size == 0 || (grad_loc == nullptr && grad_raw_scale == nullptr)) return;
  PointwiseBackward a{};
  start(t, a);
  a.n_samples = 1;
  a.value_shape = a.shape;
  a.grad_value = contiguous(grad_sample, t.storage);
  if (grad_kl != nullptr) {
    a.grad_log.kind = Operand::Kind::constant;
    a.grad_log.value = *grad_kl;
  }
  a.grads[0] = {grad_loc, t.storage};
  a.grads[1] = {grad_raw_scale, t.storage};
  a.plan = ChunkPlan(t.size, 1, Reduction::none);
  for (const Grad& grad : a.grads) expect_writes(grad.data, bytes_of(t));
  if (grad_sample == nullptr && grad_kl == nullptr) {
    for (const Grad& grad : a.grads) {
      if (grad.data != nullptr) std::memset(grad.data, 0, bytes_of(t));
    }
    return;
  }
  const PointwiseVariant& kernels =
      kernels_of(grad_sample != nullptr, grad_kl != nullptr, t.parametrization);
  (t.is_double ? kernels.backward_double : kernels.backward_float)(a);
}

}  // namespace bsl
