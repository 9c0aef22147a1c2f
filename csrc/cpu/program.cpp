#include "cpu/program.h"

#include <algorithm>
#include <limits>
#include <new>

#include "core/distributions/iwae_bound.h"
#include "cpu/parallel.h"
#include "cpu/run_steps.h"
#include "cpu/subnormals.h"
#include "cpu/training_draws.h"

namespace bsl {
namespace {

const char* fault(const Step& step, const Program& program) {
  return kSteps<float>[step.kind].fault(step, program);
}

bool fills(const Step& step, int32_t parameter, const Program& program) {
  return step.kind == kDense && Dense::fills(step, parameter, program);
}

int64_t shared(const Step& step) { return step.kind == kDense ? Dense::shared(step) : -1; }

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

// Calls f(share, begin, end) for shares of n numbers that a thread takes at a time. `alone`: all in
// this thread.
template <typename F>
void for_each_share(int64_t n, bool alone, const F& f) {
  const auto take = [&](int64_t share) {
    const int64_t begin = share * kTrainedParameters;
    f(share, begin, std::min(n, begin + kTrainedParameters));
  };
  const int64_t shares = program_training_parts(n);
  if (alone) {
    for (int64_t share = 0; share < shares; ++share) take(share);
  } else {
    parallel_chunks(shares, take);
  }
}

// Where the numbers of a call's rows are, see cpu/program.h. The samples of an example are rows one
// after the other.
struct Places {
  int64_t samples, examples;

  int64_t of_context(int64_t row) const { return samples == 1 ? row : row / samples; }
  int64_t of_x(int64_t row) const {
    return samples == 1 ? row : row % samples * examples + row / samples;
  }
};

// The numbers of rows from `first` on as lanes; those beyond the last are copies of it. `place`
// says where in the matrix a row is.
template <typename T, typename Place>
void load_lanes(const T* data, const Place& place, int64_t first, int rows, int columns, T* lanes) {
  constexpr int length = VectorOf<T>::length;
  const T* at[kTileRows];
  for (int r = 0; r < kTileRows; ++r) {
    at[r] = data + place(first + std::min(r, rows - 1)) * columns;
  }
  int c = 0;
  for (; c + length <= columns; c += length) {
    for (int r = 0; r < kTileRows; r += length) {
      Vector<T> square[length];
      for (int i = 0; i < length; ++i) square[i] = load(at[r + i] + c);
      transpose<T>(square);
      for (int i = 0; i < length; ++i) store(lanes + (c + i) * kTileRows + r, square[i]);
    }
  }
  for (; c < columns; ++c) {
    for (int r = 0; r < kTileRows; ++r) lanes[c * kTileRows + r] = at[r][c];
  }
}

template <typename T, typename Lane, typename Place>
void store_lanes(const Lane& lane, const Place& place, int64_t first, int rows, int columns,
                 T* data) {
  int64_t at[kTileRows];
  for (int r = 0; r < rows; ++r) at[r] = place(first + r) * columns;
  for (int c = 0; c < columns; ++c) {
    const T* from = lane(c);
    for (int r = 0; r < rows; ++r) data[at[r] + c] = from[r];
  }
}

template <typename T, typename Place>
void store_log(const Program& p, const double* log, const Place& place, int64_t first, int rows,
               T* data) {
  for (int r = 0; r < rows; ++r) data[place(first + r)] = static_cast<T>(p.sign * log[r]);
}

// Sets the values of a tile's first lanes, and its logarithms to zero.
template <typename T, typename Call, typename OfX, typename OfContext>
void load_tile(const Call& a, const OfX& of_x, const OfContext& of_context, const TileOf<T>& t) {
  const Program& p = *a.program;
  load_lanes(a.x, of_x, t.first, t.rows, p.features, t.values);
  if (p.context > 0) {
    load_lanes(a.context, of_context, t.first, t.rows, p.context, t.lane(p.features));
  }
  std::fill_n(t.log, kTileRows, 0.0);
  std::fill_n(t.divergence, kTileRows, 0.0);
}

template <typename T>
bool is_finite(T x) {
  return math::abs(x) < std::numeric_limits<T>::infinity();
}

template <typename T>
bool has_finite_parameters(const Program& p, const TileOf<T>& t) {
  for (size_t i = 0; i < p.sizes.size(); ++i) {
    const T* values = t.parameter(static_cast<int32_t>(i));
    if (!std::all_of(values, values + p.sizes[i], is_finite<T>)) return false;
  }
  return true;
}

// Finds the rows in which a step has overflowed: their density becomes 0. Their logarithm is not
// finite, though x has no NaN and the context is finite. They are far away, or all parameters are
// finite: else NaN tells of a parameter that is not.
template <typename T>
bool find_lost_rows(const Program& p, const TileOf<T>& t, bool (&lost)[kTileRows]) {
  const T least = static_cast<T>(p.far);
  if (!is_finite(least)) return false;
  bool any = false, asked = false, sound = false;
  for (int r = 0; r < kTileRows; ++r) {
    lost[r] = false;
    if (is_finite(static_cast<T>(t.log[r]))) continue;
    bool given = true, far = false;
    for (int c = 0; c < p.features; ++c) {
      const T x = t.lane(c)[r];
      given = given && x == x;
      far = far || x > least || x < -least;
    }
    for (int c = 0; c < p.context; ++c) given = given && is_finite(t.lane(p.features + c)[r]);
    if (given && !far && !asked) {
      asked = true;
      sound = has_finite_parameters(p, t);
    }
    lost[r] = given && (far || sound);
    if (lost[r]) t.log[r] = -std::numeric_limits<double>::infinity();
    any = any || lost[r];
  }
  return any;
}

// Such rows get no gradient. The steps run again with zeros in their place, as what overflowed
// would make of a gradient of 0 one that is NaN.
template <typename T>
void settle_lost_rows(const Program& p, const TileOf<T>& t) {
  bool lost[kTileRows];
  if (!find_lost_rows(p, t, lost)) return;
  for (int r = 0; r < kTileRows; ++r) {
    if (!lost[r]) continue;
    for (int c = 0; c < p.features; ++c) t.lane(c)[r] = T(0);
    t.grad_log[r] = T(0);
  }
  std::fill_n(t.log, kTileRows, 0.0);
  std::fill_n(t.divergence, kTileRows, 0.0);
  run(p, t);
  for (int r = 0; r < kTileRows; ++r) {
    if (lost[r]) t.log[r] = -std::numeric_limits<double>::infinity();
  }
}

template <typename Call>
Places places_of(const Call& a) {
  return {a.samples, a.rows / a.samples};
}

template <typename T, typename Call>
void load_tile(const Call& a, const TileOf<T>& t) {
  const Places places = places_of(a);
  load_tile(
      a, [&](int64_t row) { return places.of_x(row); },
      [&](int64_t row) { return places.of_context(row); }, t);
}

// Up to kMost tiles, and memory for their lanes.
template <typename T, int kMost>
class Tiles {
 public:
  // `like` has what all tiles share. `arrays`: one of values, and perhaps one of gradients.
  Tiles(const Program& p, const TileOf<T>& like, int arrays, int64_t rows) {
    const int64_t lanes = static_cast<int64_t>(p.lanes) * kTileRows;
    const int64_t numbers = arrays * lanes + p.scratch;
    const int64_t most = std::min<int64_t>(kMost, (rows + kTileRows - 1) / kTileRows);
    T* memory = arena_of_thread().room<T>(most * numbers);
    for (int64_t i = 0; i < most; ++i, memory += numbers) {
      TileOf<T>& t = tiles_[i] = like;
      t.values = memory;
      t.grads = memory + (arrays - 1) * lanes;
      t.scratch = memory + arrays * lanes;
      t.log = log_[i];
      t.divergence = divergence_[i];
      t.grad_log = grad_log_[i];
    }
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // Calls f(tiles, n) for the rows [begin, end), kMost tiles at a time or those that are left.
  template <typename F>
  void for_each(int64_t begin, int64_t end, const F& f) {
    int n = 0;
    for (int64_t first = begin; first < end; first += kTileRows) {
      tiles_[n].first = first;
      tiles_[n].rows = static_cast<int>(std::min<int64_t>(kTileRows, end - first));
      if (++n < kMost && first + kTileRows < end) continue;
      f(static_cast<const TileOf<T>*>(tiles_), n);
      n = 0;
      for (TileOf<T>& t : tiles_) t.fresh = nullptr;
    }
  }

 private:
  TileOf<T> tiles_[kMost];
  double log_[kMost][kTileRows], divergence_[kMost][kTileRows];
  T grad_log_[kMost][kTileRows];
};

template <typename T>
void store_tile(const ProgramForward<T>& a, int64_t draw, const TileOf<T>& t) {
  const Program& p = *a.program;
  const Places places = places_of(a);
  const auto of_x = [&](int64_t row) { return draw * a.rows + places.of_x(row); };
  bool lost[kTileRows];
  find_lost_rows(p, t, lost);
  if (a.log != nullptr) store_log(p, t.log, of_x, t.first, t.rows, a.log);
  if (a.value == nullptr) return;
  store_lanes<T>([&](int c) { return t.lane(p.results[c]); }, of_x, t.first, t.rows,
                 static_cast<int>(p.results.size()), a.value);
}

template <typename T>
void forward(const ProgramForward<T>& a) {
  const Program& p = *a.program;
  TileOf<T> like{};
  like.seeds = a.seeds + p.draws.size();
  like.streams = a.streams + p.draws.size();
  const auto parameters = [&](int64_t draw) {
    return a.parameters + draw * static_cast<int64_t>(p.sizes.size());
  };
  const int64_t count = (a.rows + kTileRows - 1) / kTileRows;
  // Many tiles keep all threads at work without waiting for each other.
  if (p.in_groups && a.draws * count <= kGroupTiles) {
    for (int64_t draw = 0; draw < a.draws; ++draw) {
      like.parameters = parameters(draw);
      Tiles<T, kGroupTiles> tiles(p, like, 1, a.rows);
      tiles.for_each(0, a.rows, [&](const TileOf<T>* group, int n) {
        parallel_chunks(n, [&](int64_t i) { load_tile(a, group[i]); });
        run(p, group, n);
        parallel_chunks(n, [&](int64_t i) { store_tile(a, draw, group[i]); });
      });
    }
    return;
  }
  // A thread takes up to 16 draws of a tile at a time, as they share what is loaded. All shares are
  // of one size, up to one draw.
  const int64_t shares = (a.draws + 15) / 16;
  parallel_chunks(shares * count, [&](int64_t task) {
    const int64_t first = task % count * kTileRows, share = task / count;
    const int64_t begin = share * a.draws / shares, end = (share + 1) * a.draws / shares;
    Tiles<T, 1> tiles(p, like, 1, kTileRows);
    tiles.for_each(first, std::min(a.rows, first + kTileRows), [&](const TileOf<T>* tile, int) {
      TileOf<T> t = *tile;
      load_tile(a, t);
      for (int64_t draw = begin; draw < end; ++draw) {
        t.parameters = parameters(draw);
        std::fill_n(t.log, kTileRows, 0.0);
        run(p, t);
        store_tile(a, draw, t);
      }
    });
  });
}

// --- bounds -------------------------------------------------------------------------------------

// The bound of an example, and the weights of its samples, which are `between` numbers apart.
template <typename T>
T bound_of(int64_t samples, int64_t between, const T* log, const T* added, T* weights) {
  double all[kMostSamples], most = -math::Real<double>::infinity, sum = 0;
  for (int64_t i = 0; i < samples; ++i) {
    all[i] = static_cast<double>(log[i * between]) + static_cast<double>(added[i * between]);
    most = all[i] > most ? all[i] : most;
  }
  most = iwae_bound::finite_or_zero(most);
  for (int64_t i = 0; i < samples; ++i) {
    all[i] = math::exp(all[i] - most);
    sum += all[i];
  }
  for (int64_t i = 0; i < samples; ++i) {
    weights[i * between] = iwae_bound::settled(static_cast<T>(all[i] / sum));
  }
  const double log_samples = math::log(static_cast<double>(samples));
  return static_cast<T>(iwae_bound::bound(most, sum, log_samples));
}

template <typename T>
void bounds(const ProgramBounds<T>& a) {
  for (int64_t i = 0; i < a.examples; ++i) {
    a.bound[i] = bound_of(a.samples, a.examples, a.log + i, a.added + i, a.weights + i);
  }
}

// --- there and back -----------------------------------------------------------------------------

// What a call does with a tile: before its steps, before they run back, and after that.
template <typename T>
struct Backward {
  const ProgramBackward<T>& a;

  // Lanes before it need no gradients.
  int32_t first_needed() const {
    const Program& p = *a.program;
    return a.grad_x != nullptr ? 0 : p.features + (a.grad_context != nullptr ? 0 : p.context);
  }

  // The samples of an example that share a bound; 0: there is none.
  int64_t samples() const { return a.added == nullptr ? 0 : a.samples; }

  void begin(const TileOf<T>& t) const {
    for (int r = 0; r < kTileRows && a.added == nullptr; ++r) {
      const T given = a.grad_log != nullptr && r < t.rows ? a.grad_log[t.first + r] : a.grad_each;
      t.grad_log[r] = r < t.rows ? static_cast<T>(a.program->sign) * given : T(0);
    }
    load_tile(a, t);
  }

  // What the tiles of some examples come to, before they run back: their bounds, and from these the
  // gradients of the logarithms.
  void bound(const TileOf<T>* tiles, int n) const {
    if (a.added == nullptr) return;
    const Places places = places_of(a);
    T log[kMostSamples], added[kMostSamples], weights[kMostSamples];
    int64_t rows = 0;
    for (int i = 0; i < n; ++i) {
      std::fill_n(tiles[i].grad_log, kTileRows, T(0));
      for (int r = 0; r < tiles[i].rows; ++r, ++rows) {
        log[rows] = static_cast<T>(tiles[i].log[r]);
        added[rows] = a.added[places.of_x(tiles->first + rows)];
      }
    }
    for (int64_t begin = 0; begin < rows; begin += a.samples) {
      const int64_t example = places.of_context(tiles->first + begin);
      a.bound[example] = bound_of(a.samples, 1, log + begin, added + begin, weights + begin);
      const T grad = a.grad_log != nullptr ? a.grad_log[example] : a.grad_each;
      for (int64_t row = begin; row < begin + a.samples; ++row) {
        a.weights[places.of_x(tiles->first + row)] = weights[row];
        tiles[row / kTileRows].grad_log[row % kTileRows] = grad * weights[row];
      }
    }
  }

  void turn(const TileOf<T>& t) const {
    const Program& p = *a.program;
    settle_lost_rows(p, t);
    if (a.log != nullptr) {
      store_log(p, t.log, [](int64_t row) { return row; }, t.first, t.rows, a.log);
    }
    std::fill_n(t.grads, static_cast<int64_t>(p.lanes) * kTileRows, T(0));
    if (a.grad_value == nullptr) return;
    const int results = static_cast<int>(p.results.size());
    for (int c = 0; c < results; ++c) {
      T* grad = t.grad(p.results[c]);
      for (int r = 0; r < t.rows; ++r) grad[r] += a.grad_value[(t.first + r) * results + c];
    }
  }

  void end(const TileOf<T>& t) const {
    const Program& p = *a.program;
    const Places places = places_of(a);
    const auto store = [&](int32_t lane, int columns, T* to) {
      if (to == nullptr) return;
      store_lanes<T>([&](int c) { return t.grad(lane + c); },
                     [&](int64_t row) { return places.of_x(row); }, t.first, t.rows, columns, to);
    };
    store(0, p.features, a.grad_x);
    store(p.features, p.context, a.grad_context);
  }
};

// The mean negative logarithm of the rows of a step of training.
template <typename T>
struct Training {
  const ProgramTraining<T>& a;
  int64_t step, rows;

  int32_t first_needed() const { return a.program->features + a.program->context; }

  void begin(const TileOf<T>& t) const {
    for (int r = 0; r < kTileRows; ++r) {
      t.grad_log[r] = r < t.rows ? T(-1) / static_cast<T>(rows) : T(0);
    }
    const auto place = [&](int64_t row) { return a.order[step * a.batch_rows + row]; };
    load_tile(a, place, place, t);
  }

  int64_t samples() const { return 0; }
  void bound(const TileOf<T>*, int) const {}

  void turn(const TileOf<T>& t) const {
    settle_lost_rows(*a.program, t);
    std::fill_n(t.grads, static_cast<int64_t>(a.program->lanes) * kTileRows, T(0));
  }

  void end(const TileOf<T>&) const {}
};

// Runs all steps there and back on all rows of a call. `sums` gets the gradients of the parameters,
// those of each chunk of rows. Calls f(chunk, tile) for each tile in the end, for those of a chunk
// in their order.
template <typename T, typename Call, typename Pass, typename F>
void run_there_and_back(const Call& a, const Pass& pass, const uint64_t* seeds, int64_t rows,
                        T* sums, const F& f) {
  const Program& p = *a.program;
  TileOf<T> like{};
  like.parameters = a.parameters;
  like.wanted = a.wanted;
  like.places = p.places.data();
  like.first_needed = pass.first_needed();
  like.seeds = seeds + p.draws.size();
  like.streams = a.streams + p.draws.size();
  like.grad_parameters = sums;
  like.fresh = p.filled.get();
  // Where gradients are added up, they begin with zero.
  const auto clear = [&](T* grads) {
    for (size_t i = 0; i < p.sizes.size(); ++i) {
      if (!a.wanted[i] || !p.filled[i]) std::fill_n(grads + p.places[i], p.sizes[i], T(0));
    }
  };
  const auto by_tile = [&](const TileOf<T>* tiles, int n, int64_t chunk) {
    for (int i = 0; i < n; ++i) {
      pass.begin(tiles[i]);
      run(p, tiles[i]);
    }
    pass.bound(tiles, n);
    for (int i = 0; i < n; ++i) {
      TileOf<T> t = tiles[i];
      if (i > 0) t.fresh = nullptr;
      pass.turn(t);
      run_back(p, t);
      pass.end(t);
      f(chunk, t);
    }
  };
  // Such a program has one chunk, so that its loops may be parallel.
  const auto by_layer = [&](const TileOf<T>* tiles, int n, int64_t chunk) {
    parallel_chunks(n, [&](int64_t i) { pass.begin(tiles[i]); });
    run(p, tiles, n);
    pass.bound(tiles, n);
    parallel_chunks(n, [&](int64_t i) { pass.turn(tiles[i]); });
    run_back(p, tiles, n);
    parallel_chunks(n, [&](int64_t i) { pass.end(tiles[i]); });
    for (int i = 0; i < n; ++i) f(chunk, tiles[i]);
  };
  const int64_t together = program_rows_together(p, pass.samples());
  const int64_t chunk_rows = program_chunk_rows(p, rows, pass.samples());
  parallel_chunks((rows + chunk_rows - 1) / chunk_rows, [&](int64_t chunk) {
    TileOf<T> own = like;
    own.grad_parameters = sums + chunk * p.n_gradients;
    clear(own.grad_parameters);
    const int64_t first = chunk * chunk_rows, last = std::min(rows, first + chunk_rows);
    if (together == kTileRows) {
      Tiles<T, 1>(p, own, 2, kTileRows).for_each(first, last, [&](const TileOf<T>* tile, int n) {
        by_tile(tile, n, chunk);
      });
      return;
    }
    Tiles<T, kGroupTiles> tiles(p, own, 2, std::min(together, last - first));
    for (int64_t begin = first; begin < last; begin += together) {
      tiles.for_each(begin, std::min(last, begin + together), [&](const TileOf<T>* group, int n) {
        if (p.in_groups) {
          by_layer(group, n, chunk);
        } else {
          by_tile(group, n, chunk);
        }
      });
    }
  });
}

// Adds the gradients [begin, end) of later chunks to those of the first.
template <typename T>
void sum_chunks(const Program& p, int64_t chunks, int64_t begin, int64_t end, T* sums) {
  for (int64_t chunk = 1; chunk < chunks; ++chunk) {
    const T* others = sums + chunk * p.n_gradients;
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) sums[i] += others[i];
  }
}

template <typename T>
void backward(const ProgramBackward<T>& a) {
  const Program& p = *a.program;
  const Backward<T> pass{a};
  const int64_t chunks = program_chunks(p, a.rows, pass.samples());
  T* sums = chunks > 1 ? a.sums : a.grad_parameters;
  run_there_and_back(a, pass, a.seeds, a.rows, sums, [](int64_t, const TileOf<T>&) {});
  if (chunks == 1) return;
  for_each_share(p.n_parameters, false, [&](int64_t, int64_t begin, int64_t end) {
    sum_chunks(p, chunks, begin, end, sums);
    std::copy(sums + begin, sums + end, a.grad_parameters + begin);
  });
}

// --- training -----------------------------------------------------------------------------------

// The gradients of the mean negative logarithm of a step's rows, summed over each chunk of them.
// Sets the sum of their negative logarithms, and adds the sum of their divergences.
template <typename T>
void batch_gradients(const ProgramTraining<T>& a, int64_t step, int64_t rows) {
  const Program& p = *a.program;
  const int64_t chunks = program_chunks(p, rows);
  std::fill_n(a.partial, 2 * chunks, 0.0);
  run_there_and_back(a, Training<T>{a, step, rows},
                     a.seeds + step * static_cast<int64_t>(p.seeds()), rows, a.sums,
                     [&](int64_t chunk, const TileOf<T>& t) {
                       for (int r = 0; r < t.rows; ++r) {
                         a.partial[2 * chunk] -= t.log[r];
                         a.partial[2 * chunk + 1] += t.divergence[r];
                       }
                     });
  a.losses[step] = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    a.losses[step] += a.partial[2 * chunk];
    a.divergences[step] += a.partial[2 * chunk + 1];
  }
}

// The most parameters that one thread updates by itself.
constexpr int64_t kMostAlone = 1 << 17;

// Sums the gradients over chunks, and takes one step of the optimizer.
template <typename T>
void update(const ProgramTraining<T>& a, const TrainingDraws<T>& draws, int64_t step,
            int64_t chunks) {
  const Program& p = *a.program;
  const auto take = [&](const OptimizerStep<T>& taken, int64_t begin, int64_t end) {
    for (size_t i = 0; i < p.tensors(); ++i) {
      const int64_t from = std::max(begin, p.places[i]);
      const int64_t to = std::min(end, p.places[i] + p.sizes[i]);
      if (from >= to || !a.wanted[i]) continue;
      const int64_t first = from - p.places[i];
      const auto at = [&](T* values) { return values == nullptr ? nullptr : values + first; };
      const OptimizerStep<T> its = taken.with_decay(a.weight_decays[i]);
      // Squares of small gradients are subnormal.
      without_subnormals([&] {
        its.update(to - from, a.sums + from, at(a.parameters[i]), at(a.means[i]),
                   at(a.mean_squares[i]));
      });
    }
  };
  const auto factors = [&](double scale) {
    return OptimizerStep<T>(a.optimizer, a.rates[step], scale, a.steps_before + step + 1);
  };
  // Few gradients of one chunk are in one thread's cache: to wake others costs more than it saves.
  const bool alone = chunks == 1 && p.n_gradients <= kMostAlone;
  const bool clips = a.clip < std::numeric_limits<double>::infinity();
  if (p.draws.empty() && !clips) {
    const OptimizerStep<T> taken = factors(1);
    for_each_share(p.n_gradients, alone, [&](int64_t, int64_t begin, int64_t end) {
      sum_chunks(p, chunks, begin, end, a.sums);
      take(taken, begin, end);
    });
    return;
  }
  for_each_share(p.n_parameters, alone, [&](int64_t, int64_t begin, int64_t end) {
    sum_chunks(p, chunks, begin, end, a.sums);
  });
  draws.pull_back(a.wanted, a.sums, a.kl_weights[step]);
  double scale = 1;
  if (clips) {
    for_each_share(p.n_gradients, alone, [&](int64_t part, int64_t begin, int64_t end) {
      a.partial[part] = sum_of_squares(end - begin, a.sums + begin);
    });
    double squares = 0;
    const int64_t parts = program_training_parts(p.n_gradients);
    for (int64_t part = 0; part < parts; ++part) squares += a.partial[part];
    scale = clip_factor(squares, a.clip);
  }
  const OptimizerStep<T> taken = factors(scale);
  for_each_share(p.n_gradients, alone,
                 [&](int64_t, int64_t begin, int64_t end) { take(taken, begin, end); });
}

template <typename T>
void train(const ProgramTraining<T>& a) {
  const Program& p = *a.program;
  TrainingDraws<T> draws(p, a.factors, a.draw_partial);
  const int64_t n_seeds = static_cast<int64_t>(p.seeds());
  for (int64_t step = 0; step * a.batch_rows < a.rows; ++step) {
    const int64_t rows = std::min(a.batch_rows, a.rows - step * a.batch_rows);
    a.divergences[step] = draws.draw(a.parameters, a.seeds + step * n_seeds, a.streams);
    batch_gradients(a, step, rows);
    update(a, draws, step, program_chunks(p, rows));
  }
}

}  // namespace

namespace BSL_ISA {
extern const ProgramKernels program_kernels = {
    fault,          fills,           shared,          scratch,
    forward<float>, forward<double>, backward<float>, backward<double>,
    bounds<float>,  bounds<double>,  train<float>,    train<double>};
}  // namespace BSL_ISA
}  // namespace bsl
