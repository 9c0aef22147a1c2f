// The weights of a program that are drawn for a step of training.
//
// The gradients of what they are drawn from are linear in those of samples and divergence. So all
// factors are computed together with the samples, while noise and scales are at hand.
#pragma once

#include <algorithm>

#include "core/distributions/normal_pointwise.h"
#include "core/program.h"
#include "cpu/block.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

// A function of pointers alone, that compilers vectorise. n is a multiple of the vectors' lengths.
template <Parametrization P, typename T>
__attribute__((noinline)) void draw_block(int n, const Numbers<T> prior, const T* loc, const T* raw,
                                          const T* noise, T* sample, T* kl, T* kl_by_loc,
                                          T* kl_by_raw, T* raw_by_sample) {
  using Op = normal::RsampleKlFixedPrior<P>;
#pragma GCC ivdep
  for (int i = 0; i < n; ++i) {
    const Result<T> drawn = Op::forward(prior, loc[i], raw[i], noise[i]);
    const auto by_sample = Op::backward(prior, {T(1), T(0)}, loc[i], raw[i], noise[i]);
    const auto by_kl = Op::backward(prior, {T(0), T(1)}, loc[i], raw[i], noise[i]);
    sample[i] = drawn.value;
    kl[i] = drawn.log;
    kl_by_loc[i] = by_kl.of[0];
    kl_by_raw[i] = by_kl.of[1];
    raw_by_sample[i] = by_sample.of[1];
  }
}

template <typename T>
class TrainingDraws {
 public:
  // `factors`: room for 3 n_drawn numbers; `partial`: for training_draw_shares(p).
  TrainingDraws(const Program& p, T* factors, double* partial)
      : p_(p), factors_(factors), partial_(partial) {}

  // Fills in the samples of the table, and returns the sum of all divergences.
  double draw(T* const* table, const uint64_t* seeds, const uint64_t* streams) {
    const int64_t shares = training_draw_shares(p_);
    parallel_chunks(shares, [&](int64_t s) {
      const Share share = share_of(s);
      partial_[s] = 0;
      for (int64_t first = share.begin; first < share.end; first += kBlock) {
        const int n = static_cast<int>(std::min<int64_t>(kBlock, share.end - first));
        partial_[s] += block(share.draw, first, n, table, seeds, streams);
      }
    });
    double total = 0;
    for (int64_t s = 0; s < shares; ++s) total += partial_[s];
    return total;
  }

  // Fills in the gradients of what weights are drawn from, in the row of all. Those of samples
  // become those of their locs.
  void pull_back(const bool* wanted, T* grads, double grad_kl) const {
    const T times = static_cast<T>(grad_kl);
    parallel_chunks(training_draw_shares(p_), [&](int64_t s) {
      const Share share = share_of(s);
      const Draw& draw = p_.draws[share.draw];
      const int64_t sample = p_.places[p_.tensors() + share.draw];
      T* by_sample = grads + sample;
      const T* factor = factors_ + sample;
      if (wanted[draw.raw_scale]) {
        T* grad = grads + p_.places[draw.raw_scale];
        const T* by_raw = factor + p_.n_drawn;
        const T* raw_by_sample = by_raw + p_.n_drawn;
#pragma GCC ivdep
        for (int64_t i = share.begin; i < share.end; ++i) {
          grad[i] = product(by_sample[i], raw_by_sample[i]) + times * by_raw[i];
        }
      }
      if (!wanted[draw.loc]) {
        std::fill(by_sample + share.begin, by_sample + share.end, T(0));
        return;
      }
#pragma GCC ivdep
      for (int64_t i = share.begin; i < share.end; ++i) by_sample[i] += times * factor[i];
    });
  }

 private:
  // What a thread takes at a time: a part of one tensor.
  struct Share {
    size_t draw;
    int64_t begin, end;
  };

  Share share_of(int64_t index) const {
    size_t draw = 0;
    for (;; ++draw) {
      const int64_t shares = draw_shares(p_, draw);
      if (index < shares) break;
      index -= shares;
    }
    const int64_t begin = index * kDrawShare;
    return {draw, begin, std::min(p_.sizes[p_.tensors() + draw], begin + kDrawShare)};
  }

  double block(size_t index, int64_t first, int n, T* const* table, const uint64_t* seeds,
               const uint64_t* streams) {
    const Draw& draw = p_.draws[index];
    alignas(64) T buffer[kNoiseBuffer], loc[kBlock], raw[kBlock], results[5][kBlock];
    // Whole vectors; what is beyond the last weight is not used.
    const int padded = (n + kVector - 1) / kVector * kVector;
    std::copy_n(table[draw.loc] + first, n, loc);
    std::copy_n(table[draw.raw_scale] + first, n, raw);
    std::fill(loc + n, loc + padded, T(0));
    std::fill(raw + n, raw + padded, T(0));
    const T* noise =
        normal_block(seeds[index], streams[index], static_cast<uint64_t>(first), buffer, n);
    Numbers<T> prior{};
    prior.at[0] = static_cast<T>(draw.prior_loc);
    prior.at[1] = static_cast<T>(draw.prior_scale);
    const auto run = [&](auto function) {
      function(padded, prior, loc, raw, noise, results[0], results[1], results[2], results[3],
               results[4]);
    };
    switch (static_cast<Parametrization>(draw.parametrization)) {
      case Parametrization::softplus:
        run(draw_block<Parametrization::softplus, T>);
        break;
      case Parametrization::log_scale:
        run(draw_block<Parametrization::log_scale, T>);
        break;
      default:  // no program has Parametrization::scale
        run(draw_block<Parametrization::log_var, T>);
    }
    std::copy_n(results[0], n, table[p_.tensors() + index] + first);
    T* factors = factors_ + p_.places[p_.tensors() + index] + first;
    for (int k = 0; k < 3; ++k) std::copy_n(results[2 + k], n, factors + k * p_.n_drawn);
    double sums[kVector] = {};
    std::fill(results[1] + n, results[1] + padded, T(0));
    for (int i = 0; i < padded; i += kVector) {
      for (int j = 0; j < kVector; ++j) sums[j] += static_cast<double>(results[1][i + j]);
    }
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  }

  static constexpr int kVector = 16;
  const Program& p_;
  // The derivatives of the divergence by loc and by raw scale, and of samples by raw scale.
  T* factors_;
  double* partial_;
};

}  // namespace
}  // namespace bsl
