// A block takes a piece of a tensor, and draws what normal_rsample_kl draws for that tensor alone,
// with the stream that is the tensor's.
#include "cuda/normal_many.h"

#include "core/distributions/normal_pointwise.h"
#include "cuda/partials.h"
#include "cuda/team.h"

namespace bsl {
namespace {

// Of this block: the tensor, and which of its elements.
struct Piece {
  int tensor;
  int64_t begin, end;

  __device__ explicit Piece(const NormalMany& a) {
    // The last tensor that does not begin later; those without elements begin with the next one.
    int low = 0, high = a.n - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (a.tensors[middle].first_piece <= blockIdx.x) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    tensor = low;
    begin = (blockIdx.x - a.tensors[low].first_piece) * kNormalPiece;
    end = least(begin + kNormalPiece, a.tensors[low].numel);
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
  const Piece piece(a);
  const NormalTensor& tensor = a.tensors[piece.tensor];
  const uint64_t seed = static_cast<uint64_t>(*a.seed), stream = a.stream + piece.tensor;
  const T prior_loc = static_cast<T>(tensor.prior_loc);
  const T prior_scale = static_cast<T>(tensor.prior_scale);
  double total = 0;
  for_each_part<T>(piece.begin, piece.end, threadIdx.x, kThreads, [&](Part part) {
    const Group<T> loc = read<T>(static_cast<const Stored*>(tensor.loc), part);
    const Group<T> raw = read<T>(static_cast<const Stored*>(tensor.raw_scale), part);
    const Group<T> noise = draw<true, T>(seed, stream, static_cast<uint64_t>(part.start));
    Group<T> sample;
    T sum = 0;
    for (int j = 0; j < kGroup<T>; ++j) {
      const Result<T> r =
          Op::forward(Numbers<T>{}, loc.at[j], raw.at[j], prior_loc, prior_scale, noise.at[j]);
      sample.at[j] = r.value;
      sum += j < part.to ? r.log : T(0);
    }
    write(sample, static_cast<Stored*>(tensor.sample), part);
    total += static_cast<double>(sum);
  });
  total = Team(kThreads).sum(total);
  if (threadIdx.x == 0) a.partials[blockIdx.x] = total;
}

template <typename Op, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads)
    normal_many_backward_kernel(const __grid_constant__ NormalMany a) {
  const Piece piece(a);
  const NormalTensor& tensor = a.tensors[piece.tensor];
  const uint64_t seed = static_cast<uint64_t>(*a.seed), stream = a.stream + piece.tensor;
  const T prior_loc = static_cast<T>(tensor.prior_loc);
  const T prior_scale = static_cast<T>(tensor.prior_scale);
  const T by_kl = a.grad_kl == nullptr ? T(0) : loaded(*static_cast<const Stored*>(a.grad_kl));
  for_each_part<T>(piece.begin, piece.end, threadIdx.x, kThreads, [&](Part part) {
    const Group<T> loc = read<T>(static_cast<const Stored*>(tensor.loc), part);
    const Group<T> raw = read<T>(static_cast<const Stored*>(tensor.raw_scale), part);
    const Group<T> by_sample = read_if<T, Stored>(tensor.sample, part);
    const Group<T> noise = draw<true, T>(seed, stream, static_cast<uint64_t>(part.start));
    Group<T> by_loc, by_raw;
    for (int j = 0; j < kGroup<T>; ++j) {
      const Gradients<T, 4> g =
          Op::backward(Numbers<T>{}, Result<T>{by_sample.at[j], by_kl}, loc.at[j], raw.at[j],
                       prior_loc, prior_scale, noise.at[j]);
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

template <typename T, typename Stored>
void total(const NormalTotal& a, cudaStream_t stream) {
  combine_partials<T, Stored>({a.partials, a.pieces, 1, a.kl}, stream);
}

}  // namespace

namespace BSL_ISA {
extern const NormalManyKernels normal_many_kernels[4] = {
    kKernels<Parametrization::softplus>, kKernels<Parametrization::scale>,
    kKernels<Parametrization::log_scale>, kKernels<Parametrization::log_var>};
extern void (*const normal_many_total[4])(const NormalTotal&, cudaStream_t) = {
    total<float, float>, total<double, double>, total<float, BFloat16>, total<float, Half>};
}  // namespace BSL_ISA
}  // namespace bsl
