// What the modules with CPU and with CUDA kernels get of a spline.
#pragma once

#include <stdexcept>

#include "core/bijectors/rational_quadratic.h"
#include "core/layout.h"

namespace bsl {

inline SplineSettings spline_settings(int bins, int tails, bool inverse, double bound,
                                      double min_width, double min_height, double min_derivative) {
  if (bins < 1 || bins > kMaxBins) throw std::invalid_argument("number of bins");
  return {bins, static_cast<Tails>(tails), inverse, bound, min_width, min_height, min_derivative};
}

}  // namespace bsl
