"""Normalizing flows: densities that can be evaluated, sampled and differentiated exactly.

>>> import torch, bslfast
>>> flow = bslfast.flows.NSF(2, transforms=3)
>>> loss = -flow.log_prob(torch.randn(8, 2)).mean()
>>> loss.backward()
>>> flow.sample(5).shape
torch.Size([5, 2])
"""

from bslfast.flows.coupling import AffineCoupling, Coupling, SplineCoupling
from bslfast.flows.flow import Flow, FlowDistribution
from bslfast.flows.models import NSF, RealNVP
from bslfast.flows.transform import Composite, Permutation, Reverse, Transform

__all__ = [
    "NSF",
    "AffineCoupling",
    "Composite",
    "Coupling",
    "Flow",
    "FlowDistribution",
    "Permutation",
    "RealNVP",
    "Reverse",
    "SplineCoupling",
    "Transform",
]
