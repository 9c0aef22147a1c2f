// A sample of normal distributions for each row, and their divergence from the standard normal,
// which is taken off the logarithm. The noise is that of normal_rsample_kl over [rows, samples].
#pragma once

#include <algorithm>

#include "core/distributions/normal_pointwise.h"
#include "cpu/block.h"
#include "cpu/noise_block.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// inputs: locs, then logarithms of variances. outputs: samples, then their noise.
// options: which of the call's seeds. numbers: the factor of the divergence.
struct NormalSample {
  static const char* fault(const Step& step, const Program& program) {
    if (step.inputs.empty() || step.inputs.size() % 2 != 0) return "inputs";
    if (step.outputs.size() != step.inputs.size()) return "outputs";
    if (step.options.size() != 1 || step.options[0] < 0 || step.options[0] >= program.noises) {
      return "options";
    }
    return step.numbers.size() == 1 ? nullptr : "numbers";
  }

  static int64_t scratch(const Step&) { return 0; }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const int n = count(step);
    draw(step, t);
    const double factor = step.numbers[0];
    const Numbers<T> prior = standard<T>();
    for (int j = 0; j < n; ++j) {
      const T* loc = t.lane(step.inputs[j]);
      const T* log_var = t.lane(step.inputs[n + j]);
      const T* noise = t.lane(step.outputs[n + j]);
      T* sample = t.lane(step.outputs[j]);
      T kl[kTileRows];
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const Result<T> drawn = Op::forward(prior, loc[r], log_var[r], noise[r]);
        sample[r] = drawn.value;
        kl[r] = drawn.log;
      }
      for (int r = 0; r < kTileRows; ++r) {
        t.divergence[r] += static_cast<double>(kl[r]);
        t.log[r] -= factor * static_cast<double>(kl[r]);
      }
    }
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const int n = count(step);
    const T factor = static_cast<T>(step.numbers[0]);
    const Numbers<T> prior = standard<T>();
    for (int j = 0; j < n; ++j) {
      const T* loc = t.lane(step.inputs[j]);
      const T* log_var = t.lane(step.inputs[n + j]);
      const T* noise = t.lane(step.outputs[n + j]);
      const T* grad_sample = t.grad(step.outputs[j]);
      T* grad_loc = t.grad(step.inputs[j]);
      T* grad_log_var = t.grad(step.inputs[n + j]);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const Result<T> grad = {grad_sample[r], -factor * t.grad_log[r]};
        const Gradients<T, 2> by = Op::backward(prior, grad, loc[r], log_var[r], noise[r]);
        grad_loc[r] += by.of[0];
        grad_log_var[r] += by.of[1];
      }
    }
  }

 private:
  using Op = normal::RsampleKlFixedPrior<Parametrization::log_var>;
  static int count(const Step& step) { return static_cast<int>(step.inputs.size() / 2); }

  template <typename T>
  static Numbers<T> standard() {
    Numbers<T> prior{};
    prior.at[1] = T(1);
    return prior;
  }

  // Fills in the noise. Its numbers go along rows of all samples. Rows that are copies of the last
  // one have its noise: with their own they could overflow where no row of the data does.
  template <typename T>
  static void draw(const Step& step, const TileOf<T>& t) {
    const int n = count(step);
    const int place = step.options[0];
    const int64_t begin = t.first * n, total = int64_t{kTileRows} * n;
    alignas(64) T buffer[kNoiseBuffer];
    int row = 0, sample = 0;
    for (int64_t done = 0; done < total; done += kBlock) {
      const int length = static_cast<int>(std::min<int64_t>(kBlock, total - done));
      const T* noise = normal_block(t.seeds[place], t.streams[place],
                                    static_cast<uint64_t>(begin + done), buffer, length);
      for (int i = 0; i < length; ++i) {
        t.lane(step.outputs[n + sample])[row] = noise[i];
        if (++sample == n) {
          sample = 0;
          ++row;
        }
      }
    }
    for (int j = 0; j < n; ++j) {
      T* noise = t.lane(step.outputs[n + j]);
      std::fill(noise + t.rows, noise + kTileRows, noise[t.rows - 1]);
    }
  }
};

}  // namespace
}  // namespace bsl
