// A dense layer: y = W x + b, and perhaps other lanes added, as in residual blocks.
//
// A masked layer has a level for each input and each output. An output sees the inputs of levels up
// to its own. Other weights count as zero, and their gradients are zeros.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cpu/steps/simd.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// It may be a part of a layer: of some rows of W, and the first columns.
//
// inputs: those of W, then the lanes to be added: none, or one for each output.
// parameters: W and b, each of which may be absent.
// options: whether lanes are added; the first row of W and b that belongs to an output, and how
// many rows the next one is further on; the length of W's rows. Then nothing, or the levels of the
// inputs and those of the outputs.
struct Dense {
  static bool adds(const Step& step) { return step.options[0] != 0; }
  static int first_row(const Step& step) { return step.options[1]; }
  static int between_rows(const Step& step) { return step.options[2]; }
  static int length(const Step& step) { return step.options[3]; }
  static int n_out(const Step& step) { return static_cast<int>(step.outputs.size()); }
  static int n_in(const Step& step) {
    return static_cast<int>(step.inputs.size()) - (adds(step) ? n_out(step) : 0);
  }

  static const char* fault(const Step& step, const Program& program) {
    if (step.parameters.size() != 2) return "parameters";
    if (step.options.size() < kOptions) return "options";
    const int in = n_in(step), out = n_out(step);
    if (in < 0 || out < 1) return "inputs and outputs";
    if (step.options.size() != kOptions &&
        step.options.size() != static_cast<size_t>(kOptions + in + out)) {
      return "options";
    }
    const int32_t w = step.parameters[0], b = step.parameters[1];
    const int64_t last = first_row(step) + int64_t{out - 1} * between_rows(step);
    if (first_row(step) < 0 || between_rows(step) < 0 || in > length(step)) return "options";
    if (w < 0 ? in != 0 : last * length(step) + in > program.sizes[w]) return "weights";
    if (b >= 0 && last >= program.sizes[b]) return "biases";
    return nullptr;
  }

  // Whether it writes the gradients of all numbers of a parameter.
  static bool fills(const Step& step, int32_t parameter, const Program& program) {
    return parameter == step.parameters[0] && !masked(step) && first_row(step) == 0 &&
           between_rows(step) == 1 && n_in(step) == length(step) &&
           int64_t{n_out(step)} * n_in(step) == program.sizes[parameter];
  }

  static int64_t shared(const Step& step) {
    return masked(step) ? 0 : int64_t{n_out(step)} * n_in(step);
  }

  // The inputs of a tile, row by row.
  static int64_t scratch(const Step& step) { return padded(n_in(step)) * kTileRows; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    forward(step, t, 0, n_out(step));
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    transpose_inputs(step, t);
    backward_parameters(step, &t, 1, 0, n_out(step), 0, n_in(step));
    backward_added(step, t);
    if (t.needs(step.inputs.data(), n_in(step))) backward_inputs(step, t, 0, n_in(step));
  }

  // Parts of a pass, which may run at the same time.

  // The outputs [begin, end).
  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t, int begin, int end) {
    const int in = n_in(step);
    Product<T> p;
    p.lanes = t.values;
    p.weights = first_weight(step, t);
    p.between_outputs = between_weights(step);
    p.between_inputs = 1;
    if (const T* bias = t.parameter(step.parameters[1])) p.bias = bias + first_row(step);
    p.between_biases = between_rows(step);
    p.n_in = in;
    p.inputs = step.inputs.data();
    p.outputs = step.outputs.data();
    p.start = adds(step) ? p.inputs + in : nullptr;
    p.in_levels = levels(step);
    p.out_levels = p.in_levels + in;
    multiply(p, masked(step), begin, end);
  }

  // Before those of the backward pass: the inputs of a tile row by row, for the gradients of the
  // weights.
  template <typename T>
  static void transpose_inputs(const Step& step, const TileOf<T>& t) {
    if (t.grad_parameter(step.parameters[0]) == nullptr) return;
    constexpr int length = VectorOf<T>::length;
    const int in = n_in(step);
    for (int column = 0; column < in; column += length) {
      for (int row = 0; row < kTileRows; row += length) {
        Vector<T> square[length];
        for (int i = 0; i < length; ++i) {
          square[i] = column + i < in ? load(t.lane(step.inputs[column + i]) + row) : Vector<T>{};
        }
        transpose<T>(square);
        T* to = transposed(t, column) + row * kBlockLength<T>;
        for (int i = 0; i < length; ++i) store(to + i * kBlockLength<T>, square[i]);
      }
    }
  }

  // The gradients of the biases of the outputs [begin, end), and of their weights of the inputs
  // [first_input, last_input), by some tiles.
  template <typename T>
  static void backward_parameters(const Step& step, const TileOf<T>* tiles, int n, int begin,
                                  int end, int first_input, int last_input) {
    T* bias = tiles->grad_parameter(step.parameters[1]);
    for (int i = 0; i < n && bias != nullptr && first_input == 0; ++i) {
      add_row_sums(tiles[i].grad(step.outputs[begin]), end - begin, between_rows(step),
                   bias + first_row(step) + begin * between_rows(step));
    }
    T* weights = tiles->grad_parameter(step.parameters[0]);
    if (weights == nullptr) return;
    weights += int64_t{first_row(step)} * length(step);
    if (masked(step)) {
      add_products<true>(step, tiles, n, begin, end, first_input, last_input, weights);
    } else {
      add_products<false>(step, tiles, n, begin, end, first_input, last_input, weights);
    }
  }

  // The gradients of lanes that are added.
  template <typename T>
  static void backward_added(const Step& step, const TileOf<T>& t) {
    const int in = n_in(step);
    for (int o = 0; adds(step) && o < n_out(step); ++o) {
      const T* from = t.grad(step.outputs[o]);
      T* to = t.grad(step.inputs[in + o]);
      for (int r = 0; r < kTileRows; ++r) to[r] += from[r];
    }
  }

  // The gradients of the inputs [begin, end).
  template <typename T>
  static void backward_inputs(const Step& step, const TileOf<T>& t, int begin, int end) {
    Product<T> p = back<T>(step);
    p.lanes = t.grads;
    p.weights = first_weight(step, t);
    p.between_inputs = between_weights(step);
    multiply(p, masked(step), begin, end);
  }

  // Those of a block of inputs, in some tiles. Its weights are far apart in each row of the matrix,
  // so they are copied.
  template <typename T>
  static void backward_inputs(const Step& step, const TileOf<T>* tiles, int n, int begin, int end) {
    constexpr int most = 256;
    T weights[most * kMostOutputs];
    Product<T> p = back<T>(step);
    p.weights = weights;
    p.between_inputs = kMostOutputs;
    p.outputs = p.start = p.outputs + begin;
    p.out_levels += begin;
    for (int o = 0; o < n_out(step); o += most) {
      p.n_in = std::min(most, n_out(step) - o);
      const T* from = first_weight(step, *tiles) + o * between_weights(step) + begin;
      for (int i = 0; i < p.n_in; ++i, from += between_weights(step)) {
        // A constant number of them is copied by few instructions.
        if (end - begin == kMostOutputs) {
          std::copy_n(from, kMostOutputs, weights + i * kMostOutputs);
        } else {
          std::copy_n(from, end - begin, weights + i * kMostOutputs);
        }
      }
      for (int i = 0; i < n; ++i) {
        p.lanes = tiles[i].grads;
        multiply(p, masked(step), 0, end - begin);
      }
      p.inputs += most;
      p.in_levels += most;
    }
  }

 private:
  static constexpr int kOptions = 4;
  static bool masked(const Step& step) { return step.options.size() > kOptions; }
  static const int32_t* levels(const Step& step) { return step.options.data() + kOptions; }
  static int64_t between_weights(const Step& step) {
    return int64_t{between_rows(step)} * length(step);
  }
  template <typename T>
  static const T* first_weight(const Step& step, const TileOf<T>& t) {
    const T* weights = t.parameter(step.parameters[0]);
    return weights == nullptr ? nullptr : weights + int64_t{first_row(step)} * length(step);
  }
  static int64_t padded(int n) { return (n + 31) / 32 * 32; }

  // y[o] = start[o] + bias[o] + sum of w[o, i] x[i] over those i whose level, times `sign`, is at
  // most that of o.
  template <typename T>
  struct Product {
    T* lanes = nullptr;
    const T* weights = nullptr;
    int64_t between_outputs = 0, between_inputs = 0;
    const T* bias = nullptr;
    int64_t between_biases = 0;
    int n_in = 0;
    const int32_t* inputs = nullptr;
    const int32_t* outputs = nullptr;
    const int32_t* start = nullptr;
    const int32_t* in_levels = nullptr;
    const int32_t* out_levels = nullptr;
    int sign = 1;

    T* lane(int32_t index) const { return lanes + static_cast<int64_t>(index) * kTileRows; }
    int in_level(int i) const { return sign * in_levels[i]; }
    int out_level(int o) const { return sign * out_levels[o]; }
  };

  // From gradients of outputs to those of inputs.
  template <typename T>
  static Product<T> back(const Step& step) {
    Product<T> p;
    p.between_outputs = 1;
    p.n_in = n_out(step);
    p.inputs = step.outputs.data();
    p.outputs = p.start = step.inputs.data();
    p.out_levels = levels(step);
    p.in_levels = p.out_levels + n_in(step);
    p.sign = -1;
    return p;
  }

  template <typename T>
  static void multiply(const Product<T>& p, bool masked, int begin, int end) {
    if (masked) {
      multiply<true>(p, begin, end);
    } else {
      multiply<false>(p, begin, end);
    }
  }

  template <bool kMasked, typename T>
  static void multiply(const Product<T>& p, int begin, int end) {
    for_each_block(begin, end, [&](int first, auto count) {
      int least = 0, most = 0;
      if constexpr (kMasked) {
        least = most = p.out_level(first);
        for (int j = 1; j < count; ++j) {
          least = std::min(least, p.out_level(first + j));
          most = std::max(most, p.out_level(first + j));
        }
      }
      for (int row = 0; row < kTileRows; row += kBlockLength<T>) {
        multiply_block<decltype(count)::value, kMasked>(p, first, row, least, most);
      }
    });
  }

  // J outputs from `first` on, of the rows from `row` on. All see the inputs of levels up to
  // `least`, and none sees those beyond `most`.
  template <int J, bool kMasked, typename T>
  BSL_HD static void multiply_block(const Product<T>& p, int first, int row, int least, int most) {
    using V = Vector<T>;
    constexpr int length = VectorOf<T>::length;
    V sums[J][2];
    for (int j = 0; j < J; ++j) {
      sums[j][0] = sums[j][1] =
          V{} + (p.bias == nullptr ? T(0) : p.bias[(first + j) * p.between_biases]);
    }
    if (p.start != nullptr) {
      for (int j = 0; j < J; ++j) {
        const T* from = p.lane(p.start[first + j]) + row;
        sums[j][0] += load(from);
        sums[j][1] += load(from + length);
      }
    }
    const auto add = [&](int i, const T* weights, int64_t between) {
      const T* x = p.lane(p.inputs[i]) + row;
      const V x0 = load(x), x1 = load(x + length);
      for (int j = 0; j < J; ++j) {
        const T w = weights[j * between];
        sums[j][0] += w * x0;
        sums[j][1] += w * x1;
      }
    };
    const T* weights = p.weights + first * p.between_outputs;
    for (int i = 0; i < p.n_in; ++i, weights += p.between_inputs) {
      if constexpr (kMasked) {
        const int level = p.in_level(i);
        if (level > most) continue;
        if (level > least) {
          T seen[J];
          for (int j = 0; j < J; ++j) {
            seen[j] = level <= p.out_level(first + j) ? weights[j * p.between_outputs] : T(0);
          }
          add(i, seen, 1);
          continue;
        }
      }
      add(i, weights, p.between_outputs);
    }
    for (int j = 0; j < J; ++j) {
      T* y = p.lane(p.outputs[first + j]) + row;
      store(y, sums[j][0]);
      store(y + length, sums[j][1]);
    }
  }

  // Where the inputs from a column on are in the scratch, [kTileRows][kBlockLength].
  template <typename T>
  static T* transposed(const TileOf<T>& t, int column) {
    constexpr int block = kBlockLength<T>;
    return t.scratch + static_cast<int64_t>(column / block) * block * kTileRows + column % block;
  }

  // Adds the gradient of W: sums over rows of grad_y[o] x[i].
  template <bool kMasked, typename T>
  static void add_products(const Step& step, const TileOf<T>* tiles, int n_tiles, int begin,
                           int end, int first_input, int last_input, T* to) {
    const int32_t* seen = levels(step);
    const int32_t* sees = seen + n_in(step);
    const bool fresh = tiles->is_fresh(step.parameters[0]);
    for_each_block(begin, end, [&](int first, auto count) {
      constexpr int J = decltype(count)::value;
      const int32_t lane = step.outputs[first];
      int least = 0, most = 0;
      if constexpr (kMasked) {
        least = *std::min_element(sees + first, sees + first + J);
        most = *std::max_element(sees + first, sees + first + J);
      }
      for (int column = first_input; column < last_input;) {
        constexpr int length = VectorOf<T>::length;
        // Two vectors of columns, or the one that is left.
        const bool one = last_input - column <= length;
        const int n = std::min(one ? length : 2 * length, last_input - column);
        bool all = n == 2 * length;
        if constexpr (kMasked) {
          if (*std::min_element(seen + column, seen + column + n) > most) {
            column += n;
            continue;
          }
          all = all && *std::max_element(seen + column, seen + column + n) <= least;
        }
        Vector<T> sums[J][2] = {};
        for (int i = 0; i < n_tiles; ++i) {
          const T* grads = tiles[i].grad(lane);
          const T* x = transposed(tiles[i], column);
          if (one) {
            sum_products<J, 1>(grads, x, sums);
          } else {
            sum_products<J, 2>(grads, x, sums);
          }
        }
        T* row = to + first * between_weights(step) + column;
        for (int j = 0; j < J; ++j, row += between_weights(step)) {
          if (all) {
            store(row, fresh ? sums[j][0] : load(row) + sums[j][0]);
            store(row + length, fresh ? sums[j][1] : load(row + length) + sums[j][1]);
            continue;
          }
          T products[2 * length];
          store(products, sums[j][0]);
          store(products + length, sums[j][1]);
          for (int i = 0; i < n; ++i) {
            const bool counts = !kMasked || seen[column + i] <= sees[first + j];
            row[i] = (fresh ? T(0) : row[i]) + (counts ? products[i] : T(0));
          }
        }
        column += n;
      }
    });
  }

  // The first N vectors of each row.
  template <int J, int N, typename T>
  BSL_HD static void sum_products(const T* grads, const T* x, Vector<T> (&sums)[J][2]) {
    for (int r = 0; r < kTileRows; ++r, x += kBlockLength<T>) {
      Vector<T> columns[N];
      for (int k = 0; k < N; ++k) columns[k] = load(x + k * VectorOf<T>::length);
      for (int j = 0; j < J; ++j) {
        const T g = grads[j * kTileRows + r];
        for (int k = 0; k < N; ++k) sums[j][k] += g * columns[k];
      }
    }
  }
};

}  // namespace
}  // namespace bsl
