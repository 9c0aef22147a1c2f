"""Other libraries' models made fast: converted, or with bslfast's ops in the place of functions.

>>> import bslfast
>>> "nflows" in bslfast.patch.PEERS
True
"""

from bslfast.patch import bayesian_torch as bayesian_torch
from bslfast.patch import blitz as blitz
from bslfast.patch import nflows as nflows
from bslfast.patch import normflows as normflows
from bslfast.patch import torchbnn as torchbnn
from bslfast.patch import zuko as zuko
from bslfast.patch.bayesian_torch import WithKL
from bslfast.patch.blitz import WithFinalState
from bslfast.patch.nflows import EmbeddedFlow
from bslfast.patch.pyro_ppl import pyro
from bslfast.patch.registry import CONVERTERS, PEERS, CannotConvert, Converter, Kept, convert
from bslfast.patch.swapped import using

__all__ = [
    "CONVERTERS",
    "PEERS",
    "CannotConvert",
    "Converter",
    "EmbeddedFlow",
    "Kept",
    "WithFinalState",
    "WithKL",
    "convert",
    "pyro",
    "using",
]
