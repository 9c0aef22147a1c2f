// Programs: a whole network, its maps and its log density as a list of steps, run as one call.
//
// A program works on tiles of kTileRows rows of the data. A tile has lanes: arrays of kTileRows
// numbers, one for each row. The first lanes are the features of x, the next ones those of the
// context. Each step reads some lanes and writes lanes of its own, so that no lane is written
// twice. Steps add to a logarithm for each row. The code of the steps is in cpu/steps/, where
// similar steps share a file.
//
// A step that only reorders features costs nothing: later steps read other lanes.
//
// Parameters are tensors. Those of Bayesian layers are drawn: before the steps run, samples are
// drawn from a loc and a raw scale, and steps read the samples.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace bsl {

constexpr int kTileRows = 32;

// What steps there are: the name that Python uses, and the type in cpu/steps/.
#define BSL_STEP_KINDS(X)                                \
  X(dense, Dense)                                        \
  X(activation, Activation)                              \
  X(constant, Constant)                                  \
  X(triangular, Triangular)                              \
  X(additive, Additive)                                  \
  X(gate, Gate)                                          \
  X(affine_coupling, AffineMap)                          \
  X(leaky_relu_transform, LeakyReluMap)                  \
  X(tanh_transform, TanhMap)                             \
  X(sigmoid_transform, SigmoidMap)                       \
  X(softplus_transform, SoftplusMap)                     \
  X(exp_transform, ExpMap)                               \
  X(within, Within)                                      \
  X(planar, PlanarMap)                                   \
  X(planar_inverse, PlanarInverseMap)                    \
  X(radial, RadialMap)                                   \
  X(radial_inverse, RadialInverseMap)                    \
  X(householder, Householder)                            \
  X(sylvester, Sylvester)                                \
  X(rational_quadratic_spline, RationalQuadraticSpline)  \
  X(mixture_logistic_transform, MixtureLogisticMap)      \
  X(deep_sigmoidal_transform, DeepSigmoidalMap)          \
  X(bernstein_transform, BernsteinMap)                   \
  X(standard_normal, StandardNormal)                     \
  X(normal_log_prob, NormalLogProb)                      \
  X(laplace_log_prob, LaplaceLogProb)                    \
  X(student_t_log_prob, StudentTLogProb)                 \
  X(bernoulli_log_prob, BernoulliLogProb)                \
  X(poisson_log_prob, PoissonLogProb)                    \
  X(negative_binomial_log_prob, NegativeBinomialLogProb) \
  X(categorical_log_prob, CategoricalLogProb)            \
  X(uniform_log_prob, UniformLogProb)                    \
  X(von_mises_log_prob, VonMisesLogProb)                 \
  X(normal_mixture_log_prob, NormalMixture)              \
  X(normal_sample, NormalSample)

// Activations, by the names that Python uses, and how many numbers a step has, from least to most.
//   softplus: a, or nothing for 0: softplus(x) + a
//   gelu_tanh: with a tanh in the place of the normal distribution function
//   linear: a, b: a x + b
//   log: a: log(x + a)
//   softclip: a: x / (1 + |x| / a), between -a and a
//   raw_exp: the number of which softplus is exp(x)
#define BSL_ACTIVATIONS(X) \
  X(relu, 0, 0)            \
  X(tanh, 0, 0)            \
  X(sigmoid, 0, 0)         \
  X(silu, 0, 0)            \
  X(softplus, 0, 1)        \
  X(gelu, 0, 0)            \
  X(gelu_tanh, 0, 0)       \
  X(exp, 0, 0)             \
  X(linear, 2, 2)          \
  X(log, 1, 1)             \
  X(softclip, 1, 1)        \
  X(raw_exp, 0, 0)

struct Step {
  int kind;                         // its place in the list above
  std::vector<int32_t> inputs;      // lanes that it reads
  std::vector<int32_t> outputs;     // lanes that it writes
  std::vector<int32_t> parameters;  // places in the program's table; -1: it has none there
  std::vector<int32_t> options;     // what they mean, the step's file says
  std::vector<double> numbers;      // likewise
};

// A normal tensor of weights with a normal prior, as of normal_rsample_kl.
struct Draw {
  int32_t loc, raw_scale;  // places in the program's table, of tensors that no step reads
  int32_t parametrization;
  double prior_loc, prior_scale;
};

struct Program {
  int32_t features, context;
  int32_t lanes;                 // in all
  std::vector<int32_t> results;  // the lanes of the vector that it returns
  // The table of parameters: how many numbers each has. After the tensors come the samples, one for
  // each draw.
  std::vector<int64_t> sizes;
  // Where a parameter's gradient begins in the row of all: first locs that are drawn from, then
  // tensors that steps read, then raw scales. That of a sample becomes that of its loc, in its
  // place.
  std::vector<int64_t> places;
  // For each parameter, whether no step adds to its gradient: one writes all of it, or samples are
  // drawn from it.
  std::unique_ptr<bool[]> filled;
  std::vector<Draw> draws;
  int32_t noises = 0;        // seeds of a call beside those of the draws, which steps take
  int64_t n_drawn = 0;       // numbers in all samples
  int64_t n_parameters = 0;  // and in tensors that steps read
  int64_t n_gradients = 0;   // the length of that row
  std::vector<Step> steps;
  int64_t scratch = 0;  // numbers that the most demanding step needs for itself
  // What logarithms are multiplied by when the call returns them.
  double sign = 1;
  // Finite in the program of a density, where a row that overflows gets a density of 0. A row with
  // a number of x beyond it gets one even if parameters are not finite.
  double far = std::numeric_limits<double>::infinity();
  bool in_groups = false;  // whether several tiles take each step together: see cpu/run_steps.h

  std::size_t seeds() const { return draws.size() + static_cast<std::size_t>(noises); }
  std::size_t tensors() const { return sizes.size() - draws.size(); }
};

namespace {

// Tiles of a group.
constexpr int kGroupTiles = 8;

// The most samples of an example whose bound a call can have.
constexpr int64_t kMostSamples = kGroupTiles * kTileRows;

// How many rows run there before any of them runs back. `samples` of an example that share a bound
// stay together; 0: there is none.
inline int64_t program_rows_together(const Program& p, int64_t samples) {
  if (samples > 0) return kMostSamples / samples * samples;
  return p.in_groups ? kGroupTiles * kTileRows : kTileRows;
}

// How many rows one chunk of a backward pass has, which has its own sums of gradients. It depends
// on the call alone, so that sums over rows are the same for any number of threads.
inline int64_t program_chunk_rows(const Program& p, int64_t rows, int64_t samples = 0) {
  const int64_t together = program_rows_together(p, samples);
  const int64_t parts = (rows + together - 1) / together;
  if (p.in_groups) return parts * together;
  // Few where there are many parameters.
  constexpr int64_t room = int64_t{1} << 20, least = 4, most = 16;
  int64_t chunks = p.n_parameters > 0 ? room / p.n_parameters : most;
  chunks = chunks < least ? least : chunks > most ? most : chunks;
  return (parts + chunks - 1) / chunks * together;
}

inline int64_t program_chunks(const Program& p, int64_t rows, int64_t samples = 0) {
  const int64_t chunk_rows = program_chunk_rows(p, rows, samples);
  return (rows + chunk_rows - 1) / chunk_rows;
}

}  // namespace

}  // namespace bsl
