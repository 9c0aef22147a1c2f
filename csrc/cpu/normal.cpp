#include "cpu/normal.h"

#include <type_traits>

#include "core/product.h"
#include "cpu/block.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

// The prior's parameters, block by block; worked out once where they are constants.
template <typename T>
class PriorReader {
 public:
  PriorReader(const Operand& loc, const Operand& scale, const Shape& shape)
      : loc_(loc, shape), scale_(scale, shape) {
    if (scale_.is_constant()) prepare(scale_.block(0, kBlock));
  }

  void load(int64_t start, int length) {
    loc_block_ = loc_.block(start, length);
    if (!scale_.is_constant()) prepare(scale_.block(start, length));
  }

  normal::Prior<T> operator[](int i) const { return {loc_block_[i], inv_scale_[i], log_scale_[i]}; }

  bool negative() const { return negative_ != 0; }

 private:
  void prepare(const T* scale) {
    int negative = 0;
    for (int i = 0; i < kBlock; ++i) {
      inv_scale_[i] = T(1) / scale[i];
      log_scale_[i] = math::log(scale[i]);
      negative |= scale[i] < T(0);
    }
    negative_ |= negative;
  }

  Reader<T> loc_, scale_;
  const T* loc_block_ = nullptr;
  alignas(64) T inv_scale_[kBlock];
  alignas(64) T log_scale_[kBlock];
  int negative_ = 0;
};

template <typename T, Parametrization P>
void forward_chunk(const NormalForward& a, int64_t chunk) {
  Reader<T> loc_reader(a.loc, a.shape), raw_reader(a.raw_scale, a.shape);
  PriorReader<T> prior(a.prior_loc, a.prior_scale, a.shape);
  Reducer<T> kl(a.plan, a.reduction, chunk, a.kl, a.partials);
  Writer<T> sample(a.sample, a.storage);
  alignas(64) T scale[kBlock], divergence[kBlock], noise_buffer[kNoiseBuffer];
  bool bad = false;

  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* loc = loc_reader.block(start, length);
    const T* raw = raw_reader.block(start, length);
    if constexpr (P == Parametrization::scale) {
      int negative = 0;
      for (int i = 0; i < kBlock; ++i) negative |= raw[i] < T(0);
      bad |= negative != 0;
    }
    if (sample || !kIsLog<P>) {
      for (int i = 0; i < kBlock; ++i) scale[i] = scale_of<P>(raw[i]);
    }
    if (kl) {
      prior.load(start, length);
      for (int i = 0; i < kBlock; ++i) {
        divergence[i] = normal::kl<P>(loc[i], raw[i], scale[i], prior[i]);
      }
      kl.add(divergence, start, length);
    }
    if (sample) {
      for (int64_t s = 0; s < a.n_samples; ++s) {
        const int64_t first = s * a.shape.numel + start;
        const T* noise =
            normal_block<T>(a.seed, a.stream, static_cast<uint64_t>(first), noise_buffer);
        T* out = sample.block(first, length);
        for (int i = 0; i < kBlock; ++i) out[i] = loc[i] + scale[i] * noise[i];
        sample.commit(first, length);
      }
    }
  });
  if (bad || (kl && prior.negative())) __atomic_store_n(a.bad_scale, 1, __ATOMIC_RELAXED);
}

template <typename T, Parametrization P>
void backward_chunk(const NormalBackward& a, int64_t chunk) {
  Reader<T> loc_reader(a.loc, a.shape), raw_reader(a.raw_scale, a.shape);
  Reader<T> grad_sample_reader(a.grad_sample, a.sample_shape), grad_kl_reader(a.grad_kl, a.shape);
  PriorReader<T> prior(a.prior_loc, a.prior_scale, a.shape);
  Writer<T> grad_loc(a.grad_loc), grad_raw(a.grad_raw_scale);
  Writer<T> grad_prior_loc(a.grad_prior_loc), grad_prior_scale(a.grad_prior_scale);
  alignas(64) T scale[kBlock], scale_grad[kBlock];
  alignas(64) T by_loc[kBlock], by_scale[kBlock], noise_buffer[kNoiseBuffer];

  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* loc = loc_reader.block(start, length);
    const T* raw = raw_reader.block(start, length);
    if (a.grad_kl && !kIsLog<P>) {
      for (int i = 0; i < kBlock; ++i) {
        scale[i] = scale_of<P>(raw[i]);
        scale_grad[i] = bsl::scale_grad<P>(raw[i]);
      }
    } else if (a.grad_sample) {
      for (int i = 0; i < kBlock; ++i) scale_grad[i] = bsl::scale_grad<P>(raw[i]);
    }

    // Through the samples: sample = loc + scale * noise.
    for (int i = 0; i < kBlock; ++i) by_loc[i] = by_scale[i] = T(0);
    for (int64_t s = 0; a.grad_sample && s < a.n_samples; ++s) {
      const int64_t first = s * a.shape.numel + start;
      const T* g = grad_sample_reader.block(first, length);
      for (int i = 0; i < kBlock; ++i) by_loc[i] += g[i];
      if (!grad_raw) continue;
      const T* noise =
          normal_block<T>(a.seed, a.stream, static_cast<uint64_t>(first), noise_buffer);
      for (int i = 0; i < kBlock; ++i) by_scale[i] += g[i] * noise[i];
    }
    if (a.grad_sample) {
      for (int i = 0; i < kBlock; ++i) by_scale[i] = product(by_scale[i], scale_grad[i]);
    }

    // Through the divergence.
    const T* g_kl = nullptr;
    if (a.grad_kl) {
      prior.load(start, length);
      g_kl = grad_kl_reader.block(start, length);
      for (int i = 0; i < kBlock; ++i) {
        by_loc[i] += g_kl[i] * normal::kl_grad_loc(loc[i], prior[i]);
        by_scale[i] += g_kl[i] * normal::kl_grad_raw<P>(raw[i], scale[i], scale_grad[i], prior[i]);
      }
    }
    grad_loc.store(by_loc, start, length);
    grad_raw.store(by_scale, start, length);
    if (grad_prior_loc && g_kl != nullptr) {
      for (int i = 0; i < kBlock; ++i) by_loc[i] = -g_kl[i] * normal::kl_grad_loc(loc[i], prior[i]);
      grad_prior_loc.store(by_loc, start, length);
    }
    if (grad_prior_scale && g_kl != nullptr) {
      for (int i = 0; i < kBlock; ++i) {
        by_scale[i] = g_kl[i] * normal::kl_grad_prior_scale<P>(loc[i], raw[i], scale[i], prior[i]);
      }
      grad_prior_scale.store(by_scale, start, length);
    }
  });
}

template <Parametrization P>
using Constant = std::integral_constant<Parametrization, P>;

// Calls f with the call's parametrization as a constant.
template <typename F>
void with_parametrization(Parametrization parametrization, const F& f) {
  switch (parametrization) {
    case Parametrization::softplus:
      return f(Constant<Parametrization::softplus>());
    case Parametrization::scale:
      return f(Constant<Parametrization::scale>());
    case Parametrization::log_scale:
      return f(Constant<Parametrization::log_scale>());
    case Parametrization::log_var:
      return f(Constant<Parametrization::log_var>());
  }
}

template <typename T>
void forward(const NormalForward& a) {
  with_parametrization(a.parametrization, [&](auto p) {
    parallel_chunks(a.plan.n_chunks,
                    [&](int64_t chunk) { forward_chunk<T, decltype(p)::value>(a, chunk); });
  });
  if (a.kl != nullptr) combine_partials<T>(a.plan, a.partials, a.kl);
}

template <typename T>
void backward(const NormalBackward& a) {
  with_parametrization(a.parametrization, [&](auto p) {
    parallel_chunks(a.plan.n_chunks,
                    [&](int64_t chunk) { backward_chunk<T, decltype(p)::value>(a, chunk); });
  });
}

}  // namespace

namespace BSL_ISA {
extern const NormalKernels normal_kernels = {forward<float>, forward<double>, backward<float>,
                                             backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
