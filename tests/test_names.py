"""Names that stand in C++ alone: Python has no list or number of its own beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.normal_mc_kl import PRIORS
from ops.rational_quadratic import SLOPES

import bslfast.functional as BF
from bslfast._native import _cpu
from bslfast.programs import Builder
from bslfast.programs.networks import activated
from bslfast.training.optimizers import OPTIMIZERS

X = torch.zeros(2, 3)
BINS = (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.zeros(2, 3, 3))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("parametrization", lambda v: BF.normal_rsample(X, X, parametrization=v)),
        ("parametrization", lambda v: BF.normal_rsample_kl_many([X], [X], parametrization=v)),
        ("prior", lambda v: BF.normal_rsample_mc_kl(X, X, prior=v)),
        ("reduction", lambda v: BF.normal_kl(X, X, reduction=v)),
        ("scale_fn", lambda v: BF.affine_coupling(X, X, X, scale_fn=v)),
        ("tails", lambda v: BF.rational_quadratic_spline(X, *BINS, tails=v)),
        ("estimator", lambda v: BF.iwae_bound(X, estimator=v)),
    ],
)
def test_unknown_options_are_refused(name: str, call: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected one of .*, got 'nothing'"):
        call("nothing")


def test_unknown_names_of_programs_are_refused() -> None:
    builder = Builder(3)
    with pytest.raises(ValueError, match="not in tuple"):
        activated(builder, "nothing", builder.x)
    with pytest.raises(KeyError, match="nothing"):
        builder.draw(X, X + 1, parametrization="nothing", prior=(0.0, 1.0), seed=0, stream=0)
    with pytest.raises(ValueError, match="no step is called 'nothing'"):
        _cpu.Program(1, 0, [("nothing", [0], [], [], [], [])], [0], [])
    program = _cpu.Program(1, 0, [("standard_normal", [0], [], [], [], [])], [0], [1])
    order, row = torch.zeros(1, dtype=torch.int64), torch.zeros(1)
    with pytest.raises(ValueError, match="no optimizer is called 'nothing'"):
        program.train(
            *(False, 1, 1, order.data_ptr(), row.data_ptr(), 0, [row.data_ptr()], [True]),
            *([0], [0], "nothing", 0.9, 0.99, 1e-8, [0.0], 1.0, [0.1], 0, ([], []), [0.0]),
        )


@pytest.mark.parametrize("variant", [-1, 0, 4])
def test_steps_refuse_parametrizations_that_they_do_not_have(variant: int) -> None:
    """Where a scale is from a softplus, another step makes it."""
    step = ("normal_log_prob", [0, 1, 2], [], [], [variant], [])
    with pytest.raises(ValueError, match="options"):
        _cpu.Program(3, 0, [step], [0], [])


def test_every_name_is_tested() -> None:
    """Lists that have something for each name have all."""
    assert set(PRIORS) == set(_cpu.PRIORS)
    assert SLOPES == _cpu.EXTRA_SLOPES
    assert set(OPTIMIZERS) == set(_cpu.OPTIMIZERS)
