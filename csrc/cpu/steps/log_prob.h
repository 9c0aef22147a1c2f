// Log densities of targets under what a network gives for them, without outputs.
//
// inputs: as of the op. options: of an op with a scale, the place of its parametrization; else 0.
#pragma once

#include "core/distributions/bernoulli.h"
#include "core/distributions/laplace.h"
#include "core/distributions/negative_binomial.h"
#include "core/distributions/normal_log_prob.h"
#include "core/distributions/poisson.h"
#include "core/distributions/student_t.h"
#include "core/distributions/von_mises.h"
#include "cpu/steps/pointwise.h"

namespace bsl {
namespace {

// From a scale as such on, in the order of their parametrizations.
template <typename... Ops>
using ScaledStep = PointwiseStepFrom<static_cast<int>(Parametrization::scale), Ops...>;

using NormalLogProb =
    ScaledStep<normal::LogProb<Parametrization::scale>, normal::LogProb<Parametrization::log_scale>,
               normal::LogProb<Parametrization::log_var>>;
using LaplaceLogProb =
    ScaledStep<location_scale::LogProb<Parametrization::scale, laplace::Base>,
               location_scale::LogProb<Parametrization::log_scale, laplace::Base>>;
using StudentTLogProb = ScaledStep<student_t::LogProb<Parametrization::scale>,
                                   student_t::LogProb<Parametrization::log_scale>>;
using VonMisesLogProb = PointwiseStep<von_mises::LogProb>;
using BernoulliLogProb = PointwiseStep<bernoulli::LogProb>;
using PoissonLogProb = PointwiseStep<poisson::LogProb>;
using NegativeBinomialLogProb = PointwiseStep<negative_binomial::LogProb>;

// Uniform between two numbers, which are the first two; the third is its log density there.
struct Uniform : Pointwise<1, kLog> {
  template <typename T>
  BSL_HD static Result<T> forward(const Numbers<T>& numbers, T x) {
    const bool outside = (x < numbers.at[0]) | (x > numbers.at[1]);
    return {T(0), outside ? -math::Real<T>::infinity : (x - x) + numbers.at[2]};
  }
  template <typename T>
  BSL_HD static Gradients<T, 1> backward(const Numbers<T>&, Result<T>, T) {
    return {{T(0)}};
  }
};
using UniformLogProb = PointwiseStep<Uniform>;

}  // namespace
}  // namespace bsl
