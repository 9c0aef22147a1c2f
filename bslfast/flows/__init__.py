"""Normalizing flows: densities that can be evaluated, sampled and differentiated exactly.

>>> import torch, bslfast
>>> flow = bslfast.flows.NSF(2, transforms=3)
>>> loss = -flow.log_prob(torch.randn(8, 2)).mean()
>>> loss.backward()
>>> flow.sample(5).shape
torch.Size([5, 2])
"""

from bslfast.flows import lowering as lowering  # registers what becomes a program
from bslfast.flows.autoregressive import Autoregressive
from bslfast.flows.bases import (
    Base,
    NormalBase,
    NormalMixtureBase,
    StudentTBase,
    UniformBase,
    VonMisesBase,
)
from bslfast.flows.conditioners import MADE, Conditioner, ConvConditioner
from bslfast.flows.coupling import Coupling
from bslfast.flows.elementwise import (
    Atanh,
    Elementwise,
    Exp,
    LeakyReLU,
    Log,
    Logit,
    Sigmoid,
    Softplus,
    Tanh,
)
from bslfast.flows.flow import Flow, FlowDistribution
from bslfast.flows.images import Images, ImageTransform, InvertibleConv1x1, PerPixel, Squeeze
from bslfast.flows.linear import PLU, Householder, PLULinear
from bslfast.flows.maps import (
    Additive,
    Affine,
    Bernstein,
    DeepSigmoidal,
    Map,
    MixtureLogistic,
    Spline,
)
from bslfast.flows.models import IAF, MAF, NICE, NSF, Glow, RealNVP
from bslfast.flows.named_couplings import (
    AdditiveCoupling,
    AffineCoupling,
    BernsteinCoupling,
    DeepSigmoidalCoupling,
    MixtureLogisticCoupling,
    SplineCoupling,
)
from bslfast.flows.normalization import ActNorm, BatchNorm, Rescale, Standardize
from bslfast.flows.planar import Planar
from bslfast.flows.radial import Radial
from bslfast.flows.sylvester import Sylvester
from bslfast.flows.transform import Composite, Inverse, Leading, Permutation, Reverse, Transform

__all__ = [
    "IAF",
    "MADE",
    "MAF",
    "NICE",
    "NSF",
    "PLU",
    "ActNorm",
    "Additive",
    "AdditiveCoupling",
    "Affine",
    "AffineCoupling",
    "Atanh",
    "Autoregressive",
    "Base",
    "BatchNorm",
    "Bernstein",
    "BernsteinCoupling",
    "Composite",
    "Conditioner",
    "ConvConditioner",
    "Coupling",
    "DeepSigmoidal",
    "DeepSigmoidalCoupling",
    "Elementwise",
    "Exp",
    "Flow",
    "FlowDistribution",
    "Glow",
    "Householder",
    "ImageTransform",
    "Images",
    "Inverse",
    "InvertibleConv1x1",
    "Leading",
    "LeakyReLU",
    "Log",
    "Logit",
    "Map",
    "MixtureLogistic",
    "MixtureLogisticCoupling",
    "NormalBase",
    "NormalMixtureBase",
    "PLULinear",
    "PerPixel",
    "Permutation",
    "Planar",
    "Radial",
    "RealNVP",
    "Rescale",
    "Reverse",
    "Sigmoid",
    "Softplus",
    "Spline",
    "SplineCoupling",
    "Squeeze",
    "Standardize",
    "StudentTBase",
    "Sylvester",
    "Tanh",
    "Transform",
    "UniformBase",
    "VonMisesBase",
]
