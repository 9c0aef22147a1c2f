// Maps of features one by one.
#pragma once

#include "core/bijectors/affine_coupling.h"
#include "core/bijectors/elementwise.h"
#include "cpu/steps/pointwise.h"

namespace bsl {
namespace {

using AffineMap =
    PointwiseStep<affine::Coupling<ScaleFn::tanh, false>, affine::Coupling<ScaleFn::tanh, true>,
                  affine::Coupling<ScaleFn::exp, false>, affine::Coupling<ScaleFn::exp, true>,
                  affine::Coupling<ScaleFn::sigmoid, false>,
                  affine::Coupling<ScaleFn::sigmoid, true>>;
using LeakyReluMap = PointwiseStep<elementwise::LeakyRelu<false>, elementwise::LeakyRelu<true>>;
using TanhMap = PointwiseStep<elementwise::Tanh<false>, elementwise::Tanh<true>>;
using SigmoidMap = PointwiseStep<elementwise::Sigmoid<false>, elementwise::Sigmoid<true>>;
using SoftplusMap = PointwiseStep<elementwise::Softplus<false>, elementwise::Softplus<true>>;
using ExpMap = PointwiseStep<elementwise::Exp<false>, elementwise::Exp<true>>;

}  // namespace
}  // namespace bsl
