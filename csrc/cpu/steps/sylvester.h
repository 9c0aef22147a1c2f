// The core of Sylvester transforms, where rows are written in the columns of an orthogonal matrix:
//
//   y = R tanh(a), a = S x + b, with log det = sum_m log(1 + r_mm s_mm (1 - tanh^2 a_m))
//
// or the same y from z = x + y. R and S are upper triangles: above their diagonals matrices have
// them as they are; on it are the logarithm of s and the number whose softplus is 1 + r s.
#pragma once

#include <algorithm>

#include "core/bijectors/tanh_equation.h"
#include "core/math.h"
#include "cpu/steps/simd.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// parameters: R and S [n, n], and b [n]. options: whether it goes back.
struct Sylvester {
  static const char* fault(const Step& step, const Program& program) {
    if (step.options.size() != 1) return "options";
    const int64_t n = static_cast<int64_t>(step.outputs.size());
    if (n < 1 || step.inputs.size() != step.outputs.size()) return "inputs and outputs";
    if (step.parameters.size() != 3) return "parameters";
    for (int k = 0; k < 3; ++k) {
      const int32_t place = step.parameters[k];
      if (place < 0 || program.sizes[place] != (k < 2 ? n * n : n)) return "parameters";
    }
    return nullptr;
  }

  // x, tanh(a), and gradients of y and a.
  static int64_t scratch(const Step& step) {
    return 4 * static_cast<int64_t>(step.outputs.size()) * kTileRows;
  }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const Core<T> m(step, t);
    const bool back = step.options[0] != 0;
    for (int i = 0; i < m.n; ++i) std::copy_n(t.lane(step.inputs[i]), kTileRows, m.x(i));
    if (back) {
      solve(m);
    } else {
      set_tanh(m);
    }
    for (int i = 0; i < m.n; ++i) {
      T* y = t.lane(step.outputs[i]);
      const T r_ii = m.r_diagonal(i), soft = math::softplus(m.r[m.at(i, i)]);
      T logs[kTileRows];
      const T* own = m.tanh(i);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        y[r] = r_ii * own[r];
        const T square = own[r] * own[r], slope = T(1) - square;
        logs[r] = math::log_near_one((soft - T(1)) * slope, square + soft * slope);
      }
      for (int j = i + 1; j < m.n; ++j) add(m.r[m.at(i, j)], m.tanh(j), y);
      for (int r = 0; r < kTileRows; ++r)
        t.log[r] += static_cast<double>(back ? -logs[r] : logs[r]);
    }
  }

  // On the way back x + y(x) = z, and y = z - x: what reaches x, -grad_y and that of the logarithm,
  // reaches z by the transposed inverse of 1 + dy/dx as l. Parameters have their gradients as if
  // that of y were -l.
  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const Core<T> m(step, t);
    const bool back = step.options[0] != 0;
    for (int i = 0; i < m.n; ++i) {
      std::copy_n(t.lane(step.inputs[i]), kTileRows, m.x(i));
      if (back) add(T(-1), t.lane(step.outputs[i]), m.x(i));
    }
    set_tanh(m);
    T* grad_r = t.grad_parameter(step.parameters[0]);
    T* grad_s = t.grad_parameter(step.parameters[1]);
    T* grad_b = t.grad_parameter(step.parameters[2]);
    for (int j = 0; j < m.n; ++j) {
      const T* grad_y = t.grad(step.outputs[j]);
      const T raw = m.r[m.at(j, j)], soft = math::softplus(raw), excess = soft - T(1);
      const T r_jj = m.r_diagonal(j), s_jj = m.s_diagonal(j);
      T by_tanh[kTileRows] = {}, by_x[kTileRows] = {}, by_soft = 0;
      for (int i = 0; i < j; ++i) {
        add(m.r[m.at(i, j)], m.by_y(i), by_tanh);
        add(m.s[m.at(i, j)], m.by_a(i), by_x);
      }
      T* by_y = m.by_y(j);
      T* by_a = m.by_a(j);
      const T* own = m.tanh(j);
      T* grad_x = t.grad(step.inputs[j]);
      for (int r = 0; r < kTileRows; ++r) {
        const T square = own[r] * own[r], slope = T(1) - square, det = square + soft * slope;
        const T by_log = (back ? -t.grad_log[r] : t.grad_log[r]) / det;
        const T rest = by_tanh[r] - T(2) * excess * own[r] * by_log;
        by_y[r] = back ? (grad_y[r] - by_x[r] - s_jj * slope * rest) / det : grad_y[r];
        by_a[r] = slope * (rest + r_jj * by_y[r]);
        grad_x[r] += by_x[r] + s_jj * by_a[r];
        by_soft += by_log * slope;
      }
      const T by_r = product_of_lanes(by_y, own), by_s = product_of_lanes(by_a, m.x(j));
      for (int i = 0; i < j; ++i) {
        if (grad_r != nullptr) grad_r[m.at(i, j)] += product_of_lanes(m.by_y(i), own);
        if (grad_s != nullptr) grad_s[m.at(i, j)] += product_of_lanes(m.by_a(i), m.x(j));
      }
      if (grad_r != nullptr) grad_r[m.at(j, j)] += (by_r / s_jj + by_soft) * math::sigmoid(raw);
      if (grad_s != nullptr) grad_s[m.at(j, j)] += by_s * s_jj - by_r * r_jj;
      for (int r = 0; grad_b != nullptr && r < kTileRows; ++r) grad_b[j] += by_a[r];
    }
  }

 private:
  template <typename T>
  struct Core {
    Core(const Step& step, const TileOf<T>& t)
        : n(static_cast<int>(step.outputs.size())),
          r(t.parameter(step.parameters[0])),
          s(t.parameter(step.parameters[1])),
          b(t.parameter(step.parameters[2])),
          scratch(t.scratch) {}

    int at(int i, int j) const { return i * n + j; }
    T s_diagonal(int i) const { return math::exp(s[at(i, i)]); }
    T r_diagonal(int i) const { return (math::softplus(r[at(i, i)]) - T(1)) / s_diagonal(i); }
    T* x(int i) const { return lane(i); }
    T* tanh(int i) const { return lane(n + i); }
    T* by_y(int i) const { return lane(2 * n + i); }
    T* by_a(int i) const { return lane(3 * n + i); }
    T* lane(int i) const { return scratch + static_cast<int64_t>(i) * kTileRows; }

    int n;
    const T* r;
    const T* s;
    const T* b;
    T* scratch;
  };

  template <typename T>
  static void add(T factor, const T* from, T* to) {
    for (int r = 0; r < kTileRows; ++r) to[r] += factor * from[r];
  }

  template <typename T>
  static void set_tanh(const Core<T>& m) {
    for (int i = 0; i < m.n; ++i) {
      T* a = m.tanh(i);
      std::fill_n(a, kTileRows, m.b[i]);
      add(m.s_diagonal(i), m.x(i), a);
      for (int j = i + 1; j < m.n; ++j) add(m.s[m.at(i, j)], m.x(j), a);
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) a[r] = math::tanh(a[r]);
    }
  }

  // Finds x, with z in its place, from the last a to the first, in float64.
  template <typename T>
  static void solve(const Core<T>& m) {
    for (int i = m.n - 1; i >= 0; --i) {
      const double raw = static_cast<double>(m.r[m.at(i, i)]);
      const double s = math::exp(static_cast<double>(m.s[m.at(i, i)])), soft = math::softplus(raw);
      double beside[kTileRows] = {}, c[kTileRows];
      for (int r = 0; r < kTileRows; ++r) c[r] = static_cast<double>(m.b[i]);
      for (int j = i + 1; j < m.n; ++j) {
        const double r_ij = static_cast<double>(m.r[m.at(i, j)]);
        const double s_ij = static_cast<double>(m.s[m.at(i, j)]);
        for (int r = 0; r < kTileRows; ++r) {
          beside[r] += r_ij * static_cast<double>(m.tanh(j)[r]);
          c[r] += s_ij * static_cast<double>(m.x(j)[r]);
        }
      }
#pragma GCC ivdep
      for (int r = 0; r < kTileRows; ++r) {
        const double x = static_cast<double>(m.x(i)[r]) - beside[r];
        const double t = math::tanh(solve_tanh(c[r] + s * x, soft));
        m.tanh(i)[r] = static_cast<T>(t);
        m.x(i)[r] = static_cast<T>(x - (soft - 1.0) / s * t);
      }
    }
  }
};

}  // namespace
}  // namespace bsl
