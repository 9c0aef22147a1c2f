"""Normalizing flows: densities that can be evaluated, sampled and differentiated exactly.

>>> import torch, bslfast
>>> flow = bslfast.flows.NSF(2, transforms=3)
>>> loss = -flow.log_prob(torch.randn(8, 2)).mean()
>>> loss.backward()
>>> flow.sample(5).shape
torch.Size([5, 2])
"""

from bslfast.flows.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    BernsteinCoupling,
    Coupling,
    DeepSigmoidalCoupling,
    MixtureLogisticCoupling,
    SplineCoupling,
)
from bslfast.flows.elementwise import Elementwise, LeakyReLU, Logit, Sigmoid, Softplus, Tanh
from bslfast.flows.flow import Flow, FlowDistribution
from bslfast.flows.images import Images, ImageTransform, InvertibleConv1x1, PerPixel, Squeeze
from bslfast.flows.linear import PLU, Householder, PLULinear
from bslfast.flows.models import NSF, RealNVP
from bslfast.flows.normalization import ActNorm, BatchNorm
from bslfast.flows.rank_one import Planar, Radial
from bslfast.flows.sylvester import Sylvester
from bslfast.flows.transform import Composite, Permutation, Reverse, Transform

__all__ = [
    "NSF",
    "PLU",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "BatchNorm",
    "BernsteinCoupling",
    "Composite",
    "Coupling",
    "DeepSigmoidalCoupling",
    "Elementwise",
    "Flow",
    "FlowDistribution",
    "Householder",
    "ImageTransform",
    "Images",
    "InvertibleConv1x1",
    "LeakyReLU",
    "Logit",
    "MixtureLogisticCoupling",
    "PLULinear",
    "PerPixel",
    "Permutation",
    "Planar",
    "Radial",
    "RealNVP",
    "Reverse",
    "Sigmoid",
    "Softplus",
    "SplineCoupling",
    "Squeeze",
    "Sylvester",
    "Tanh",
    "Transform",
]
