// The categorical distribution, given by its logits: log p(k) = l_k - max - log sum exp(l - max).
#pragma once

#include "core/math.h"
#include "core/platform.h"

namespace bsl {
namespace {
namespace categorical {

// What a row of logits comes to; exp(l - max) / sum are its probabilities.
template <typename T>
struct Row {
  T max;
  T sum;
};

template <typename T>
BSL_HD T log_prob(T logit, const Row<T>& row) {
  return (logit - row.max) - math::log(row.sum);
}

}  // namespace categorical
}  // namespace
}  // namespace bsl
