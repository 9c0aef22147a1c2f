// The pointwise ops. The .cpp files here say what each op's kernels are made of, and are compiled
// for every CPU instruction set and for CUDA: see cpu/pointwise_kernels.h and
// cuda/pointwise_kernels.h.
#pragma once

// X(name) for each; kernels are called name_kernels.
#define BSL_POINTWISE_OPS(X)       \
  X(affine_coupling)               \
  X(bernoulli_kl)                  \
  X(bernoulli_log_prob)            \
  X(discretized_logistic_log_prob) \
  X(generalized_kl)                \
  X(gumbel_log_prob)               \
  X(gumbel_rsample)                \
  X(gumbel_rsample_log_prob)       \
  X(half_cauchy_kl)                \
  X(half_cauchy_log_prob)          \
  X(half_cauchy_rsample)           \
  X(laplace_kl)                    \
  X(laplace_log_prob)              \
  X(laplace_rsample)               \
  X(laplace_rsample_log_prob)      \
  X(leaky_relu_transform)          \
  X(logistic_log_prob)             \
  X(logistic_rsample)              \
  X(logistic_rsample_log_prob)     \
  X(lognormal_log_prob)            \
  X(lognormal_rsample)             \
  X(negative_binomial_log_prob)    \
  X(normal_kl)                     \
  X(normal_kl_fixed_prior)         \
  X(normal_log_prob)               \
  X(normal_rsample)                \
  X(normal_rsample_kl)             \
  X(normal_rsample_kl_fixed_prior) \
  X(normal_rsample_log_prob)       \
  X(normal_rsample_mc_kl)          \
  X(poisson_log_prob)              \
  X(relaxed_bernoulli_rsample)     \
  X(sigmoid_transform)             \
  X(softplus_transform)            \
  X(student_t_log_prob)            \
  X(student_t_rsample)             \
  X(tanh_transform)                \
  X(von_mises_log_prob)
