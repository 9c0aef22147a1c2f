// How the steps of a program (core/program.h) run: all on one tile, or each on a group of tiles.
//
// On a tile, its lanes stay in cache, and every tile reads all weights. Where these are so many
// that they leave the cache, tiles go in groups: threads share each dense layer by its outputs, or
// by its inputs on the way back, so that a thread reads a part of the weights once for all tiles,
// and adds up the gradients of a part of the weights over all tiles.
#pragma once

#include <algorithm>

#include "core/program.h"
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
#include "cpu/subnormals.h"

namespace bsl {
namespace {

enum StepKind {
#define BSL_KIND(name, type) k##type,
  BSL_STEP_KINDS(BSL_KIND)
#undef BSL_KIND
};

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

// Whether a step is part of a network, where subnormal numbers count for nothing. Other steps keep
// them: a scale may be as small.
inline bool in_network(const Step& step) { return step.kind == kDense || step.kind == kActivation; }

// Calls f(step) for each step. A network is entered once, as changing how a CPU works takes time.
template <typename Iterator, typename F>
void for_each_step(Iterator step, Iterator end, const F& f) {
  while (step != end) {
    if (in_network(*step)) {
      without_subnormals([&] {
        for (; step != end && in_network(*step); ++step) f(*step);
      });
    } else {
      f(*step++);
    }
  }
}

template <typename T>
void run(const Program& p, const TileOf<T>& t) {
  for_each_step(p.steps.begin(), p.steps.end(),
                [&](const Step& step) { kSteps<T>[step.kind].forward(step, t); });
}

// Adds to the gradients of a tile's lanes, and to those of the parameters.
template <typename T>
void run_back(const Program& p, const TileOf<T>& t) {
  for_each_step(p.steps.rbegin(), p.steps.rend(),
                [&](const Step& step) { kSteps<T>[step.kind].backward(step, t); });
}

// --- groups of tiles ----------------------------------------------------------------------------

inline int64_t blocks_of(int n) { return (n + kMostOutputs - 1) / kMostOutputs; }

// Calls f(begin, end, other), a part of a dense layer, for each block of [0, n) and each number of
// [0, others).
template <typename F>
void parallel_blocks(int n, int others, const F& f) {
  parallel_chunks(blocks_of(n) * others, [&](int64_t index) {
    const int begin = static_cast<int>(index / others) * kMostOutputs;
    without_subnormals(
        [&] { f(begin, std::min(n, begin + kMostOutputs), static_cast<int>(index % others)); });
  });
}

// Calls f(step) or f(begin, end): for a dense layer, and for steps in a row that are none.
template <typename Iterator, typename Layer, typename Others>
void for_each_run(Iterator step, Iterator end, const Layer& layer, const Others& others) {
  while (step != end) {
    if (step->kind == kDense) {
      layer(*step++);
      continue;
    }
    const Iterator next =
        std::find_if(step, end, [](const Step& other) { return other.kind == kDense; });
    others(step, next);
    step = next;
  }
}

template <typename T>
void run(const Program& p, const TileOf<T>* tiles, int n) {
  for_each_run(
      p.steps.begin(), p.steps.end(),
      [&](const Step& step) {
        parallel_blocks(Dense::n_out(step), n, [&](int begin, int end, int i) {
          Dense::forward(step, tiles[i], begin, end);
        });
      },
      [&](auto first, auto last) {
        parallel_chunks(n, [&](int64_t i) {
          for_each_step(first, last,
                        [&](const Step& step) { kSteps<T>[step.kind].forward(step, tiles[i]); });
        });
      });
}

// The inputs of a dense layer whose weights' gradients a thread adds up at a time.
constexpr int kGroupInputs = 256;

template <typename T>
void run_back(const Step& step, const TileOf<T>* tiles, int n) {
  const int in = Dense::n_in(step), out = Dense::n_out(step);
  parallel_chunks(n, [&](int64_t i) {
    Dense::transpose_inputs(step, tiles[i]);
    Dense::backward_added(step, tiles[i]);
  });
  // Weights that are drawn may lie where their gradients will be, so they are read first.
  if (tiles->needs(step.inputs.data(), in)) {
    parallel_blocks(in, 1, [&](int begin, int end, int) {
      if (n == 1) {
        Dense::backward_inputs(step, *tiles, begin, end);
      } else {
        Dense::backward_inputs(step, tiles, n, begin, end);
      }
    });
  }
  // Parts of the inputs differ in size, so threads share the outputs.
  parallel_blocks(out, std::max(1, (in + kGroupInputs - 1) / kGroupInputs),
                  [&](int begin, int end, int part) {
                    const int input = part * kGroupInputs;
                    Dense::backward_parameters(step, tiles, n, begin, end, input,
                                               std::min(in, input + kGroupInputs));
                  });
}

template <typename T>
void run_back(const Program& p, const TileOf<T>* tiles, int n) {
  for_each_run(
      p.steps.rbegin(), p.steps.rend(), [&](const Step& step) { run_back(step, tiles, n); },
      [&](auto first, auto last) {
        // Gradients of parameters are added up over the tiles, in their order.
        const bool alone = std::all_of(first, last, [&](const Step& step) {
          return std::none_of(step.parameters.begin(), step.parameters.end(), [&](int32_t place) {
            return tiles->grad_parameter(place) != nullptr;
          });
        });
        const auto run_tile = [&](int64_t i) {
          for_each_step(first, last,
                        [&](const Step& step) { kSteps<T>[step.kind].backward(step, tiles[i]); });
        };
        if (alone) {
          parallel_chunks(n, run_tile);
        } else {
          for (int i = 0; i < n; ++i) run_tile(i);
        }
      });
}

}  // namespace
}  // namespace bsl
