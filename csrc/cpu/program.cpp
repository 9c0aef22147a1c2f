#include "cpu/program.h"

#include <algorithm>
#include <limits>
#include <new>

#include "cpu/parallel.h"
#include "cpu/steps/activation.h"
#include "cpu/steps/additive.h"
#include "cpu/steps/categorical_log_prob.h"
#include "cpu/steps/constant.h"
#include "cpu/steps/dense.h"
#include "cpu/steps/element_map.h"
#include "cpu/steps/gate.h"
#include "cpu/steps/householder.h"
#include "cpu/steps/log_prob.h"
#include "cpu/steps/normal_mixture.h"
#include "cpu/steps/normal_sample.h"
#include "cpu/steps/pointwise_map.h"
#include "cpu/steps/row_map.h"
#include "cpu/steps/standard_normal.h"
#include "cpu/steps/sylvester.h"
#include "cpu/steps/triangular.h"
#include "cpu/steps/within.h"
#include "cpu/training_draws.h"

namespace bsl {
namespace {

template <typename T>
struct StepFunctions {
  const char* (*fault)(const Step&, const Program&);
  int64_t (*scratch)(const Step&);
  void (*forward)(const Step&, const TileOf<T>&);
  void (*backward)(const Step&, const TileOf<T>&);
};

template <typename T>
constexpr StepFunctions<T> kSteps[] = {
#define BSL_FUNCTIONS(name, type) \
  {type::fault, type::scratch, type::template forward<T>, type::template backward<T>},
    BSL_STEP_KINDS(BSL_FUNCTIONS)
#undef BSL_FUNCTIONS
};

const char* fault(const Step& step, const Program& program) {
  return kSteps<float>[step.kind].fault(step, program);
}

int64_t scratch(const Step& step) { return kSteps<float>[step.kind].scratch(step); }

// Memory of a thread, kept for its next call.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(); }

  template <typename T>
  T* room(int64_t numbers) {
    const size_t bytes = static_cast<size_t>(numbers) * sizeof(T);
    if (bytes > bytes_) {
      release();
      data_ = ::operator new(bytes, kAlignment);
      bytes_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  void release() {
    if (data_ != nullptr) ::operator delete(data_, kAlignment);
    data_ = nullptr;
    bytes_ = 0;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

Arena& arena_of_thread() {
  static thread_local Arena arena;
  return arena;
}

// The numbers of rows as lanes; those beyond the last are copies of it. Rows begin at `first` of
// `order`, or of the matrix if there is none.
template <typename T>
void load_lanes(const T* data, const int64_t* order, int64_t first, int rows, int columns,
                T* lanes) {
  for (int r = 0; r < kTileRows; ++r) {
    const int64_t i = first + std::min(r, rows - 1);
    const T* row = data + (order == nullptr ? i : order[i]) * columns;
    for (int c = 0; c < columns; ++c) lanes[c * kTileRows + r] = row[c];
  }
}

template <typename T, typename Lane>
void store_lanes(const Lane& lane, int64_t first, int rows, int columns, T* data) {
  for (int c = 0; c < columns; ++c) {
    const T* from = lane(c);
    for (int r = 0; r < rows; ++r) data[(first + r) * columns + c] = from[r];
  }
}

template <typename T>
void store_log(const double* log, int64_t first, int rows, T* data) {
  for (int r = 0; r < rows; ++r) data[first + r] = static_cast<T>(log[r]);
}

template <typename T, typename Call>
void load_tile(const Call& a, const int64_t* order, int64_t first, const TileOf<T>& t) {
  const Program& p = *a.program;
  load_lanes(a.x, order, first, t.rows, p.features, t.values);
  if (p.context > 0) {
    load_lanes(a.context, order, first, t.rows, p.context, t.lane(p.features));
  }
}

template <typename T>
void run(const Program& p, const TileOf<T>& t) {
  std::fill_n(t.log, kTileRows, 0.0);
  std::fill_n(t.divergence, kTileRows, 0.0);
  for (const Step& step : p.steps) kSteps<T>[step.kind].forward(step, t);
}

// Draws of a tile that a thread takes at a time, as they share what is loaded.
constexpr int64_t kTileDraws = 16;

template <typename T>
void forward(const ProgramForward<T>& a) {
  const Program& p = *a.program;
  const int results = static_cast<int>(p.results.size());
  const int64_t tiles = (a.rows + kTileRows - 1) / kTileRows;
  const int64_t groups = (a.draws + kTileDraws - 1) / kTileDraws;
  parallel_chunks(groups * tiles, [&](int64_t task) {
    const int64_t lanes = static_cast<int64_t>(p.lanes) * kTileRows;
    double log[kTileRows], divergence[kTileRows];
    TileOf<T> t{};
    t.values = arena_of_thread().room<T>(lanes + p.scratch);
    t.scratch = t.values + lanes;
    t.log = log;
    t.divergence = divergence;
    t.seeds = a.seeds + p.draws.size();
    t.streams = a.streams + p.draws.size();
    const int64_t first = task % tiles * kTileRows;
    t.first = first;
    t.rows = static_cast<int>(std::min<int64_t>(kTileRows, a.rows - first));
    load_tile(a, nullptr, first, t);
    const int64_t begin = task / tiles * kTileDraws;
    for (int64_t draw = begin; draw < std::min(a.draws, begin + kTileDraws); ++draw) {
      t.parameters = a.parameters + draw * static_cast<int64_t>(p.sizes.size());
      run(p, t);
      const int64_t row = draw * a.rows + first;
      if (a.log != nullptr) store_log(log, row, t.rows, a.log);
      if (a.value == nullptr) continue;
      store_lanes<T>([&](int c) { return t.lane(p.results[c]); }, row, t.rows, results, a.value);
    }
  });
}

// The gradients of a tile's rows, by all steps from the last to the first.
template <typename T>
void run_back(const ProgramBackward<T>& a, int64_t first, const TileOf<T>& t) {
  const Program& p = *a.program;
  std::fill_n(t.grads, static_cast<int64_t>(p.lanes) * kTileRows, T(0));
  if (a.grad_value != nullptr) {
    const int results = static_cast<int>(p.results.size());
    for (int c = 0; c < results; ++c) {
      T* grad = t.grad(p.results[c]);
      for (int r = 0; r < t.rows; ++r) grad[r] += a.grad_value[(first + r) * results + c];
    }
  }
  for (auto step = p.steps.rbegin(); step != p.steps.rend(); ++step) {
    kSteps<T>[step->kind].backward(*step, t);
  }
  if (a.grad_x != nullptr) {
    store_lanes<T>([&](int c) { return t.grad(c); }, first, t.rows, p.features, a.grad_x);
  }
  if (a.grad_context != nullptr) {
    store_lanes<T>([&](int c) { return t.grad(p.features + c); }, first, t.rows, p.context,
                   a.grad_context);
  }
}

// See TileOf.
template <typename T>
int32_t first_needed(const ProgramBackward<T>& a) {
  const Program& p = *a.program;
  return a.grad_x != nullptr ? 0 : p.features + (a.grad_context != nullptr ? 0 : p.context);
}
template <typename T>
int32_t first_needed(const ProgramTraining<T>& a) {
  return a.program->features + a.program->context;
}

// Calls f(first, tile) for each tile of a chunk of a call's rows. The tile has room for values,
// gradients and the chunk's sums; f sets the gradients of the logarithms, `grad_log`.
template <typename T, typename Call, typename F>
void for_each_tile(const Call& a, const uint64_t* seeds, int64_t chunk, int64_t chunk_rows,
                   int64_t rows, T* grad_log, const F& f) {
  const Program& p = *a.program;
  const int64_t lanes = static_cast<int64_t>(p.lanes) * kTileRows;
  double log[kTileRows], divergence[kTileRows];
  TileOf<T> t{};
  t.values = arena_of_thread().room<T>(2 * lanes + p.scratch);
  t.grads = t.values + lanes;
  t.scratch = t.grads + lanes;
  t.log = log;
  t.divergence = divergence;
  t.seeds = seeds + p.draws.size();
  t.streams = a.streams + p.draws.size();
  t.grad_log = grad_log;
  t.parameters = a.parameters;
  t.grad_parameters = a.sums + chunk * p.n_gradients;
  t.wanted = a.wanted;
  t.places = p.places.data();
  t.first_needed = first_needed(a);
  std::fill_n(t.grad_parameters, p.n_parameters, T(0));
  const int64_t end = std::min(rows, (chunk + 1) * chunk_rows);
  for (int64_t first = chunk * chunk_rows; first < end; first += kTileRows) {
    t.first = first;
    t.rows = static_cast<int>(std::min<int64_t>(kTileRows, end - first));
    f(first, t);
  }
}

template <typename T>
void backward(const ProgramBackward<T>& a) {
  const Program& p = *a.program;
  const int64_t chunk_rows = program_chunk_rows(a.rows, p.n_parameters);
  const int64_t chunks = (a.rows + chunk_rows - 1) / chunk_rows;
  parallel_chunks(chunks, [&](int64_t chunk) {
    T grad_log[kTileRows];
    for_each_tile(a, a.seeds, chunk, chunk_rows, a.rows, grad_log,
                  [&](int64_t first, const TileOf<T>& t) {
                    for (int r = 0; r < kTileRows; ++r) {
                      const T given =
                          a.grad_log != nullptr && r < t.rows ? a.grad_log[first + r] : a.grad_each;
                      grad_log[r] = r < t.rows ? given : T(0);
                    }
                    load_tile(a, nullptr, first, t);
                    run(p, t);
                    if (a.log != nullptr) store_log(t.log, first, t.rows, a.log);
                    run_back(a, first, t);
                  });
  });
  // Sums over chunks, in their order.
  constexpr int64_t share = 4096;
  parallel_chunks((p.n_parameters + share - 1) / share, [&](int64_t part) {
    const int64_t begin = part * share, end = std::min(p.n_parameters, begin + share);
    T* total = a.grad_parameters;
    for (int64_t i = begin; i < end; ++i) total[i] = a.sums[i];
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const T* sums = a.sums + chunk * p.n_gradients;
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) total[i] += sums[i];
    }
  });
}

// --- training -----------------------------------------------------------------------------------

// The gradients of the mean negative logarithm of a step's rows, summed over each chunk of them.
// Sets the sum of their negative logarithms, and adds the sum of their divergences.
template <typename T>
void batch_gradients(const ProgramTraining<T>& a, int64_t step, int64_t rows, int64_t chunk_rows,
                     int64_t chunks) {
  ProgramBackward<T> logarithm_alone{};
  logarithm_alone.program = a.program;
  const int64_t* order = a.order + step * a.batch_rows;
  const uint64_t* seeds = a.seeds + step * static_cast<int64_t>(a.program->seeds());
  parallel_chunks(chunks, [&](int64_t chunk) {
    T grad_log[kTileRows];
    double loss = 0, divergence = 0;
    for_each_tile(a, seeds, chunk, chunk_rows, rows, grad_log,
                  [&](int64_t first, const TileOf<T>& t) {
                    for (int r = 0; r < kTileRows; ++r) {
                      grad_log[r] = r < t.rows ? T(-1) / static_cast<T>(rows) : T(0);
                    }
                    load_tile(a, order, first, t);
                    run(*a.program, t);
                    run_back(logarithm_alone, first, t);
                    for (int r = 0; r < t.rows; ++r) {
                      loss -= t.log[r];
                      divergence += t.divergence[r];
                    }
                  });
    a.partial[2 * chunk] = loss;
    a.partial[2 * chunk + 1] = divergence;
  });
  a.losses[step] = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    a.losses[step] += a.partial[2 * chunk];
    a.divergences[step] += a.partial[2 * chunk + 1];
  }
}

// Sums the gradients over chunks, and takes one step of the optimizer.
template <typename T>
void update(const ProgramTraining<T>& a, const TrainingDraws<T>& draws, int64_t step,
            int64_t chunks) {
  const Program& p = *a.program;
  const auto for_each_part = [](int64_t n, const auto& f) {
    parallel_chunks(program_training_parts(n), [&](int64_t part) {
      const int64_t begin = part * kTrainedParameters;
      f(part, begin, std::min(n, begin + kTrainedParameters));
    });
  };
  const auto sum_chunks = [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const T* sums = a.sums + chunk * p.n_gradients;
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) a.sums[i] += sums[i];
    }
  };
  const auto take = [&](const OptimizerStep<T>& taken, int64_t begin, int64_t end) {
    for (size_t i = 0; i < p.tensors(); ++i) {
      const int64_t from = std::max(begin, p.places[i]);
      const int64_t to = std::min(end, p.places[i] + p.sizes[i]);
      if (from >= to || !a.wanted[i]) continue;
      const int64_t first = from - p.places[i];
      const auto at = [&](T* values) { return values == nullptr ? nullptr : values + first; };
      taken.update(to - from, a.sums + from, at(a.parameters[i]), at(a.means[i]),
                   at(a.mean_squares[i]));
    }
  };
  const auto factors = [&](double scale) {
    return OptimizerStep<T>(a.optimizer, a.rates[step], scale, a.steps_before + step + 1);
  };
  const bool clips = a.clip < std::numeric_limits<double>::infinity();
  if (p.draws.empty() && !clips) {
    const OptimizerStep<T> taken = factors(1);
    for_each_part(p.n_gradients, [&](int64_t, int64_t begin, int64_t end) {
      sum_chunks(begin, end);
      take(taken, begin, end);
    });
    return;
  }
  for_each_part(p.n_parameters,
                [&](int64_t, int64_t begin, int64_t end) { sum_chunks(begin, end); });
  draws.pull_back(a.wanted, a.sums, a.kl_weights[step]);
  double scale = 1;
  if (clips) {
    for_each_part(p.n_gradients - p.n_drawn, [&](int64_t part, int64_t begin, int64_t end) {
      a.partial[part] = sum_of_squares(end - begin, a.sums + p.n_drawn + begin);
    });
    double squares = 0;
    const int64_t parts = program_training_parts(p.n_gradients - p.n_drawn);
    for (int64_t part = 0; part < parts; ++part) squares += a.partial[part];
    scale = clip_factor(squares, a.clip);
  }
  const OptimizerStep<T> taken = factors(scale);
  for_each_part(p.n_gradients,
                [&](int64_t, int64_t begin, int64_t end) { take(taken, begin, end); });
}

template <typename T>
void train(const ProgramTraining<T>& a) {
  const Program& p = *a.program;
  TrainingDraws<T> draws(p, a.factors, a.draw_partial);
  const int64_t n_seeds = static_cast<int64_t>(p.seeds());
  // Steps give no gradients there.
  std::fill_n(a.sums + p.n_parameters, p.n_gradients - p.n_parameters, T(0));
  for (int64_t step = 0; step * a.batch_rows < a.rows; ++step) {
    const int64_t rows = std::min(a.batch_rows, a.rows - step * a.batch_rows);
    const int64_t chunk_rows = program_chunk_rows(rows, p.n_parameters);
    const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
    a.divergences[step] = draws.draw(a.parameters, a.seeds + step * n_seeds, a.streams);
    batch_gradients(a, step, rows, chunk_rows, chunks);
    update(a, draws, step, chunks);
  }
}

}  // namespace

namespace BSL_ISA {
extern const ProgramKernels program_kernels = {fault,           scratch,         forward<float>,
                                               forward<double>, backward<float>, backward<double>,
                                               train<float>,    train<double>};
}  // namespace BSL_ISA
}  // namespace bsl
