// y = T x with a triangular matrix T, or x from y: the factors L and U of a linear map.
#pragma once

#include "core/math.h"
#include "cpu/steps/simd.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// T is a triangle of the matrix F. The lower one has ones on its diagonal; on that of the upper one
// are sign_i exp(F_ii), whose logarithms it adds.
//
// parameters: F [n, n] and the signs [n]. options: whether it is the upper one; whether it goes
// back.
struct Triangular {
  static const char* fault(const Step& step, const Program& program) {
    if (step.options.size() != 2) return "options";
    const int64_t n = static_cast<int64_t>(step.outputs.size());
    if (step.inputs.size() != step.outputs.size()) return "inputs and outputs";
    if (step.parameters.size() != 2) return "parameters";
    const int32_t f = step.parameters[0], signs = step.parameters[1];
    if (f < 0 || program.sizes[f] != n * n) return "matrix";
    return signs < 0 || program.sizes[signs] != n ? "signs" : nullptr;
  }

  static int64_t scratch(const Step& step) {
    return static_cast<int64_t>(step.outputs.size()) * kTileRows;
  }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const Matrix<T> m(step, t);
    const bool back = step.options[1] != 0;
    for (int k = 0; k < m.n; ++k) {
      // What is solved for needs the numbers that come after it, or before it.
      const int i = back && m.upper ? m.n - 1 - k : k;
      const T* x = t.lane(step.inputs[i]);
      T* y = t.lane(step.outputs[i]);
      const T diagonal = m.diagonal(i);
      for (int r = 0; r < kTileRows; ++r) y[r] = back ? x[r] : diagonal * x[r];
      for (int j = m.begin(i); j < m.end(i); ++j) {
        const T factor = back ? -m.at(i, j) : m.at(i, j);
        const T* other = t.lane(back ? step.outputs[j] : step.inputs[j]);
        for (int r = 0; r < kTileRows; ++r) y[r] += factor * other[r];
      }
      for (int r = 0; back && r < kTileRows; ++r) y[r] /= diagonal;
    }
    if (!m.upper) return;
    double log = 0;
    for (int i = 0; i < m.n; ++i) log += static_cast<double>(m.at(i, i));
    for (int r = 0; r < kTileRows; ++r) t.log[r] += back ? -log : log;
  }

  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const Matrix<T> m(step, t);
    const bool back = step.options[1] != 0;
    T* grad_f = t.grad_parameter(step.parameters[0]);
    // dF_ij is the sum of `left_i right_j`: of grad_y and x; or of -v and y, with T^T v = grad_y.
    T* v = t.scratch;
    for (int k = 0; k < m.n; ++k) {
      const int i = m.upper ? k : m.n - 1 - k;
      const T* grad_y = t.grad(step.outputs[i]);
      T* own = v + i * kTileRows;
      for (int r = 0; r < kTileRows; ++r) own[r] = grad_y[r];
      if (!back) continue;
      // Those that depend on number i have been found.
      for (int j = m.upper ? 0 : i + 1; j < (m.upper ? i : m.n); ++j) {
        const T factor = m.at(j, i);
        for (int r = 0; r < kTileRows; ++r) own[r] -= factor * v[j * kTileRows + r];
      }
      const T diagonal = m.diagonal(i);
      for (int r = 0; r < kTileRows; ++r) own[r] /= diagonal;
    }
    for (int i = 0; i < m.n; ++i) {
      const T* left = v + i * kTileRows;
      const T diagonal = m.diagonal(i);
      T* grad_x = t.grad(step.inputs[i]);
      for (int r = 0; r < kTileRows; ++r) grad_x[r] += back ? left[r] : diagonal * left[r];
      for (int j = m.begin(i); j < m.end(i); ++j) {
        if (!back) {
          T* grad = t.grad(step.inputs[j]);
          const T factor = m.at(i, j);
          for (int r = 0; r < kTileRows; ++r) grad[r] += factor * left[r];
        }
        if (grad_f == nullptr) continue;
        const T total = product_of_lanes(left, t.lane(back ? step.outputs[j] : step.inputs[j]));
        grad_f[i * m.n + j] += back ? -total : total;
      }
      if (grad_f == nullptr || !m.upper) continue;
      T total = diagonal * product_of_lanes(left, t.lane(back ? step.outputs[i] : step.inputs[i]));
      for (int r = 0; r < kTileRows; ++r) total += t.grad_log[r];
      grad_f[i * m.n + i] += back ? -total : total;
    }
  }

 private:
  template <typename T>
  struct Matrix {
    Matrix(const Step& step, const TileOf<T>& t)
        : n(static_cast<int>(step.outputs.size())),
          upper(step.options[0] != 0),
          factors(t.parameter(step.parameters[0])),
          signs(t.parameter(step.parameters[1])) {}

    T at(int i, int j) const { return factors[i * n + j]; }
    T diagonal(int i) const { return upper ? signs[i] * math::exp(at(i, i)) : T(1); }
    // The columns beside the diagonal that row i has.
    int begin(int i) const { return upper ? i + 1 : 0; }
    int end(int i) const { return upper ? n : i; }

    int n;
    bool upper;
    const T* factors;
    const T* signs;
  };
};

}  // namespace
}  // namespace bsl
