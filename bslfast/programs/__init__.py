"""Whole networks as one call: trees of modules become programs, which kernels run row by row.

building.py makes the steps of a program; running.py keeps programs with their modules, and runs
them.
"""

from bslfast.programs.building import Builder, CannotLower, Lanes, lower, lowers
from bslfast.programs.running import (
    Lowered,
    explain,
    lowered,
    run,
    runnable,
    train,
    whole_networks,
)

__all__ = [
    "Builder",
    "CannotLower",
    "Lanes",
    "Lowered",
    "explain",
    "lower",
    "lowered",
    "lowers",
    "run",
    "runnable",
    "train",
    "whole_networks",
]
