// z = H_1 H_2 ... H_K x, reflections at hyperplanes: H = I - 2 u u^T with u along a vector.
#pragma once

#include <algorithm>

#include "core/math.h"
#include "cpu/steps/simd.h"
#include "cpu/steps/tile.h"

namespace bsl {
namespace {

// parameters: the vectors [K, n]; one of length 0 reflects nothing. options: whether it goes back,
// and K.
struct Householder {
  static const char* fault(const Step& step, const Program& program) {
    if (step.options.size() != 2 || step.options[1] < 0) return "options";
    const int64_t n = static_cast<int64_t>(step.outputs.size());
    if (n < 1 || step.inputs.size() != step.outputs.size()) return "inputs and outputs";
    if (step.parameters.size() != 1 || step.parameters[0] < 0) return "parameters";
    return program.sizes[step.parameters[0]] == step.options[1] * n ? nullptr : "vectors";
  }

  // z, its gradient, and a direction.
  static int64_t scratch(const Step& step) {
    return static_cast<int64_t>(step.outputs.size()) * (2 * kTileRows + 1);
  }

  template <typename T>
  static void forward(const Step& step, const TileOf<T>& t) {
    const int n = size(step);
    T* z = t.lane(step.outputs[0]);
    for (int i = 0; i < n; ++i) std::copy_n(t.lane(step.inputs[i]), kTileRows, z + i * kTileRows);
    T* u = t.scratch;
    for (int k = 0; k < count(step); ++k) {
      const int64_t place = place_of(step, k);
      set_direction(t.parameter(step.parameters[0]) + place, n, u);
      reflect(u, n, z);
    }
  }

  // By u: -2 of the products of u with x and of the gradient with u, each times the other vector.
  template <typename T>
  static void backward(const Step& step, const TileOf<T>& t) {
    const int n = size(step);
    T* z = t.scratch;
    T* grad = z + n * kTileRows;
    T* u = grad + n * kTileRows;
    std::copy_n(t.lane(step.outputs[0]), n * kTileRows, z);
    std::copy_n(t.grad(step.outputs[0]), n * kTileRows, grad);
    T* wanted = t.grad_parameter(step.parameters[0]);
    for (int k = count(step) - 1; k >= 0; --k) {
      const int64_t place = place_of(step, k);
      const T* vector = t.parameter(step.parameters[0]) + place;
      const T length = set_direction(vector, n, u);
      reflect(u, n, z);  // what came in
      if (wanted != nullptr && length > T(0)) add_gradient(u, n, length, z, grad, wanted + place);
      reflect(u, n, grad);
    }
    for (int i = 0; i < n; ++i) {
      T* grad_x = t.grad(step.inputs[i]);
      for (int r = 0; r < kTileRows; ++r) grad_x[r] += grad[i * kTileRows + r];
    }
  }

 private:
  static int size(const Step& step) { return static_cast<int>(step.outputs.size()); }
  static int count(const Step& step) { return step.options[1]; }
  // Where the vector of the k-th reflection is.
  static int64_t place_of(const Step& step, int k) {
    return int64_t{step.options[0] != 0 ? k : count(step) - 1 - k} * size(step);
  }

  // Returns the vector's length.
  template <typename T>
  static T set_direction(const T* vector, int n, T* u) {
    // Divided by the largest number first, as squares may overflow or vanish.
    T largest = 0;
    for (int i = 0; i < n; ++i) {
      const T a = math::abs(vector[i]);
      largest = a <= largest ? largest : a;  // a NaN stays
    }
    const T scale = largest == T(0) ? T(1) : largest;
    double square = 0;
    for (int i = 0; i < n; ++i) {
      const double part = static_cast<double>(vector[i] / scale);
      square += part * part;
    }
    const T length = static_cast<T>(math::sqrt(square));
    for (int i = 0; i < n; ++i) u[i] = vector[i] / scale / (largest == T(0) ? T(1) : length);
    return scale * length;
  }

  template <typename T>
  static void project(const T* u, int n, const T* lanes, T* along) {
    for (int r = 0; r < kTileRows; ++r) along[r] = T(0);
    for (int i = 0; i < n; ++i) {
      for (int r = 0; r < kTileRows; ++r) along[r] += u[i] * lanes[i * kTileRows + r];
    }
  }

  template <typename T>
  static void reflect(const T* u, int n, T* lanes) {
    T along[kTileRows];
    project(u, n, lanes, along);
    for (int i = 0; i < n; ++i) {
      const T twice = T(2) * u[i];
      for (int r = 0; r < kTileRows; ++r) lanes[i * kTileRows + r] -= twice * along[r];
    }
  }

  template <typename T>
  static void add_gradient(const T* u, int n, T length, const T* x, const T* grad, T* wanted) {
    T along_x[kTileRows], along_grad[kTileRows];
    project(u, n, x, along_x);
    project(u, n, grad, along_grad);
    const auto by_u = [&](int i) {
      return T(-2) * (product_of_lanes(along_x, grad + i * kTileRows) +
                      product_of_lanes(along_grad, x + i * kTileRows));
    };
    // The part along u is that of a length, which nothing depends on.
    const T along_u = T(-4) * product_of_lanes(along_x, along_grad);
    for (int i = 0; i < n; ++i) wanted[i] += (by_u(i) - along_u * u[i]) / length;
  }
};

}  // namespace
}  // namespace bsl
