// A block takes a piece of a tensor. It draws the same numbers as normal_rsample_kl for that tensor
// alone with the tensor's stream.
#include "cuda/normal_many.h"

#include "core/distributions/normal_pointwise.h"
#include "cuda/partials.h"
#include "cuda/team.h"

namespace bsl {
namespace {

// This block's piece of a tensor, with the seed, the stream and the prior of its elements.
template <typename T, typename Stored>
struct Piece {
  const NormalTensor& tensor;
  int64_t begin, end;
  uint64_t seed, stream;
  T prior_loc, prior_scale;

  __device__ explicit Piece(const NormalMany& a) : Piece(a, index_of_tensor(a)) {}

  // Calls f(part, locations, raw scales, noise) for this thread's share.
  template <typename F>
  __device__ __forceinline__ void for_each(const F& f) const {
    for_each_part<T>(begin, end, threadIdx.x, kThreads, [&](Part part) {
      f(part, read<T>(static_cast<const Stored*>(tensor.loc), part),
        read<T>(static_cast<const Stored*>(tensor.raw_scale), part),
        draw<true, T>(seed, stream, static_cast<uint64_t>(part.start)));
    });
  }

 private:
  __device__ Piece(const NormalMany& a, int index)
      : tensor(a.tensors[index]),
        begin((blockIdx.x - tensor.first_piece) * kNormalPiece),
        end(least(begin + kNormalPiece, tensor.numel)),
        seed(a.seed == nullptr ? 0 : static_cast<uint64_t>(*a.seed)),
        stream(a.stream + index),
        prior_loc(static_cast<T>(tensor.prior_loc)),
        prior_scale(static_cast<T>(tensor.prior_scale)) {}

  // The last tensor whose first piece is not after this block. A tensor without elements has the
  // same first piece as the next one, so it is passed over.
  __device__ static int index_of_tensor(const NormalMany& a) {
    int low = 0, high = a.n - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (a.tensors[middle].first_piece <= blockIdx.x) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }
};

template <typename T, typename Stored>
__device__ __forceinline__ Group<T> read_if(const void* data, Part part) {
  if (data == nullptr) return {};
  return read<T>(static_cast<const Stored*>(data), part);
}

template <typename T, typename Stored>
__device__ __forceinline__ void write_if(const Group<T>& group, void* data, Part part) {
  if (data != nullptr) write(group, static_cast<Stored*>(data), part);
}

template <typename Op, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads)
    normal_many_forward_kernel(const __grid_constant__ NormalMany a) {
  const Piece<T, Stored> piece(a);
  double total = 0;
  piece.for_each([&](Part part, Group<T> loc, Group<T> raw, Group<T> noise) {
    Group<T> sample;
    T sum = 0;
    for (int j = 0; j < kGroup<T>; ++j) {
      const Result<T> r = Op::forward(Numbers<T>{}, loc.at[j], raw.at[j], piece.prior_loc,
                                      piece.prior_scale, noise.at[j]);
      sample.at[j] = r.value;
      sum += j < part.to ? r.log : T(0);
    }
    write_if<T, Stored>(sample, piece.tensor.sample, part);
    total += static_cast<double>(sum);
  });
  total = Team(kThreads).sum(total);
  if (threadIdx.x == 0) a.partials[blockIdx.x] = total;
}

template <typename Op, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads)
    normal_many_backward_kernel(const __grid_constant__ NormalMany a) {
  const Piece<T, Stored> piece(a);
  const NormalTensor& tensor = piece.tensor;
  const T by_kl = a.grad_kl == nullptr ? T(0) : *static_cast<const T*>(a.grad_kl);
  piece.for_each([&](Part part, Group<T> loc, Group<T> raw, Group<T> noise) {
    const Group<T> by_sample = read_if<T, Stored>(tensor.sample, part);
    Group<T> by_loc, by_raw;
    for (int j = 0; j < kGroup<T>; ++j) {
      const Gradients<T, 4> g =
          Op::backward(Numbers<T>{}, Result<T>{by_sample.at[j], by_kl}, loc.at[j], raw.at[j],
                       piece.prior_loc, piece.prior_scale, noise.at[j]);
      by_loc.at[j] = g.of[0];
      by_raw.at[j] = g.of[1];
    }
    write_if<T, Stored>(by_loc, tensor.grad_loc, part);
    write_if<T, Stored>(by_raw, tensor.grad_raw_scale, part);
  });
}

template <typename Op, typename T, typename Stored>
void launch_forward(const NormalMany& a, cudaStream_t stream) {
  normal_many_forward_kernel<Op, T, Stored>
      <<<static_cast<unsigned>(a.pieces), kThreads, 0, stream>>>(a);
}

template <typename Op, typename T, typename Stored>
void launch_backward(const NormalMany& a, cudaStream_t stream) {
  normal_many_backward_kernel<Op, T, Stored>
      <<<static_cast<unsigned>(a.pieces), kThreads, 0, stream>>>(a);
}

template <Parametrization P>
constexpr NormalManyKernels kKernels = {{launch_forward<normal::RsampleKl<P>, float, float>,
                                         launch_forward<normal::RsampleKl<P>, double, double>,
                                         launch_forward<normal::RsampleKl<P>, float, BFloat16>,
                                         launch_forward<normal::RsampleKl<P>, float, Half>},
                                        {launch_backward<normal::RsampleKl<P>, float, float>,
                                         launch_backward<normal::RsampleKl<P>, double, double>,
                                         launch_backward<normal::RsampleKl<P>, float, BFloat16>,
                                         launch_backward<normal::RsampleKl<P>, float, Half>}};

template <typename T>
void total(const NormalTotal& a, cudaStream_t stream) {
  combine_partials<T>({a.partials, a.pieces, 1, a.kl}, stream);
}

}  // namespace

namespace BSL_ISA {
extern const NormalManyKernels normal_many_kernels[4] = {
    kKernels<Parametrization::softplus>, kKernels<Parametrization::scale>,
    kKernels<Parametrization::log_scale>, kKernels<Parametrization::log_var>};
extern void (*const normal_many_total[4])(const NormalTotal&, cudaStream_t) = {
    total<float>, total<double>, total<float>, total<float>};
}  // namespace BSL_ISA
}  // namespace bsl
