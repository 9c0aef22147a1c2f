"""Fused differentiable ops, the ground that layers, flows and VAEs stand on.

>>> import torch, bslfast.functional as BF
>>> loc, raw_scale = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
>>> sample, kl = BF.normal_rsample_kl(loc, raw_scale, seed=0)
>>> (sample.sum() + kl).backward()
>>> loc.grad
tensor([1., 1., 1.])
"""

from bslfast.functional._op import use_reference
from bslfast.functional.bayes_linear import bayes_linear
from bslfast.functional.normal import normal_kl, normal_rsample, normal_rsample_kl

__all__ = ["bayes_linear", "normal_kl", "normal_rsample", "normal_rsample_kl", "use_reference"]
