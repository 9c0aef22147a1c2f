"""Other libraries' models made fast: converted, or with bslfast's ops in the place of functions.

>>> import bslfast
>>> "nflows" in bslfast.patch.PEERS
True
"""

from bslfast.patch import nflows as nflows
from bslfast.patch import zuko as zuko
from bslfast.patch.nflows import EmbeddedFlow
from bslfast.patch.registry import CONVERTERS, PEERS, CannotConvert, Converter, Kept, convert

__all__ = [
    "CONVERTERS",
    "PEERS",
    "CannotConvert",
    "Converter",
    "EmbeddedFlow",
    "Kept",
    "convert",
]
