"""Whole networks as one call: trees of modules become programs, which kernels run row by row.

building.py makes the steps of a program; running.py keeps programs with their modules, and runs
them.
"""

from bslfast.programs import networks as networks  # registers the layers of torch
from bslfast.programs.building import Builder, CannotLower, Drawn, Lanes, lower, lowers
from bslfast.programs.drawn import loss, outputs, samples
from bslfast.programs.running import (
    MOST_SAMPLES,
    MOST_TRAINED,
    Lowered,
    Method,
    Seeds,
    are_lent,
    are_on,
    bound,
    call,
    explain,
    forward,
    is_known_not_to_run,
    lowered,
    on_rows,
    run,
    runnable,
    train,
    whole_networks,
)

__all__ = [
    "MOST_SAMPLES",
    "MOST_TRAINED",
    "Builder",
    "CannotLower",
    "Drawn",
    "Lanes",
    "Lowered",
    "Method",
    "Seeds",
    "are_lent",
    "are_on",
    "bound",
    "call",
    "explain",
    "forward",
    "is_known_not_to_run",
    "loss",
    "lower",
    "lowered",
    "lowers",
    "on_rows",
    "outputs",
    "run",
    "runnable",
    "samples",
    "train",
    "whole_networks",
]
