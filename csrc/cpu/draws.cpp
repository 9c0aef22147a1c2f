#include "cpu/draws.h"

#include "cpu/normal_many.h"

namespace bsl {
namespace {

template <typename T>
NormalTensor tensor_of(const Program& p, const Draws<T>& draws, size_t i) {
  const Draw& draw = p.draws[i];
  return {sizeof(T) == 8,
          Storage::native,
          draw.parametrization,
          p.sizes[draw.loc],
          draws.parameters[draw.loc],
          draws.parameters[draw.raw_scale],
          draw.prior_loc,
          draw.prior_scale,
          draws.seeds[i],
          draws.streams[i]};
}

}  // namespace

template <typename T>
void draw_weights(const Program& p, const Draws<T>& draws, int64_t n_samples, double* kl) {
  for (size_t i = 0; i < p.draws.size(); ++i) {
    T* samples = draws.parameters[p.tensors() + i];
    draw_normal(tensor_of(p, draws, i), n_samples, samples, kl);
  }
}

template <typename T>
void pull_back_weights(const Program& p, const Draws<T>& draws, T* grads, double grad_kl) {
  for (size_t i = 0; i < p.draws.size(); ++i) {
    const auto grad = [&](int32_t place) {
      return draws.wanted[place] ? grads + p.places[place] : nullptr;
    };
    const T* by_sample = grads + p.places[p.tensors() + i];
    pull_back_normal(tensor_of(p, draws, i), by_sample, &grad_kl, grad(p.draws[i].loc),
                     grad(p.draws[i].raw_scale));
  }
}

template void draw_weights(const Program&, const Draws<float>&, int64_t, double*);
template void draw_weights(const Program&, const Draws<double>&, int64_t, double*);
template void pull_back_weights(const Program&, const Draws<float>&, float*, double);
template void pull_back_weights(const Program&, const Draws<double>&, double*, double);

}  // namespace bsl
