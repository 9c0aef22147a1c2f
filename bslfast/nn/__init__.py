"""Bayesian layers: drop-in modules whose weights are distributions."""

from bslfast.nn.bayesian import BayesianModule, NormalWeight, kl, one_draw
from bslfast.nn.linear import BayesLinear

__all__ = ["BayesLinear", "BayesianModule", "NormalWeight", "kl", "one_draw"]
