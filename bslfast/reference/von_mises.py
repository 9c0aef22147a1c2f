"""The von Mises density in plain torch: what csrc/core/distributions/von_mises.h computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._bessel import log_bessel
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced


@in_float32(values=0)
def von_mises_log_prob(
    x: Tensor, loc: Tensor, concentration: Tensor, *, reduction: str = "row"
) -> Tensor:
    """See :func:`bslfast.functional.von_mises_log_prob`."""
    k = torch.where(concentration < 0, torch.nan, concentration)
    normaliser = (math.log(2 * math.pi) + log_bessel(k.double())).to(k.dtype)
    away = torch.sin(0.5 * (x - loc)).square()
    return reduced(-2 * k * away - normaliser, reduction)
