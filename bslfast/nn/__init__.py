"""Bayesian layers: drop-in modules whose weights are distributions."""

from bslfast.nn.bayesian import BayesianModule, kl
from bslfast.nn.linear import BayesLinear

__all__ = ["BayesLinear", "BayesianModule", "kl"]
