// Log densities of targets under what a network gives for them, without outputs.
//
// inputs: as of the op, whose scale is given as such unless the step's options say otherwise.
#pragma once

#include "core/distributions/bernoulli.h"
#include "core/distributions/laplace.h"
#include "core/distributions/normal_log_prob.h"
#include "core/distributions/poisson.h"
#include "core/distributions/student_t.h"
#include "cpu/steps/pointwise.h"

namespace bsl {
namespace {

using NormalLogProb = PointwiseStep<normal::LogProb<Parametrization::scale>,
                                    normal::LogProb<Parametrization::log_scale>,
                                    normal::LogProb<Parametrization::log_var>>;
using LaplaceLogProb =
    PointwiseStep<location_scale::LogProb<Parametrization::scale, laplace::Base>>;
using StudentTLogProb = PointwiseStep<student_t::LogProb<Parametrization::scale>>;
using BernoulliLogProb = PointwiseStep<bernoulli::LogProb>;
using PoissonLogProb = PointwiseStep<poisson::LogProb>;

}  // namespace
}  // namespace bsl
