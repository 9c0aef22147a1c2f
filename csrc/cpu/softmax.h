// The CPU's kernels of all ops with a softmax, see core/softmax_call.h.
#pragma once

#include "core/softmax_call.h"
#include "cpu/rows.h"

namespace bsl {

using SoftmaxCall = SoftmaxCallOf<PlannedShape>;
using SoftmaxForward = SoftmaxForwardOf<PlannedShape>;
using SoftmaxBackward = SoftmaxBackwardOf<PlannedShape>;

struct SoftmaxKernels {
  void (*forward_float)(const SoftmaxForward&);
  void (*forward_double)(const SoftmaxForward&);
  void (*backward_float)(const SoftmaxBackward&);
  void (*backward_double)(const SoftmaxBackward&);
};

#define BSL_DECLARE(name) BSL_DECLARE_KERNELS(SoftmaxKernels, name##_kernels)
BSL_SOFTMAX_OPS(BSL_DECLARE)
#undef BSL_DECLARE

}  // namespace bsl
