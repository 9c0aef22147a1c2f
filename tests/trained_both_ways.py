"""A model trained by one call an epoch, and op by op."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast.training import History, fit

Model = TypeVar("Model", bound=nn.Module)


def assert_same_training(
    model: Model, train: Sequence[Tensor], validation: Sequence[Tensor], **setting: Any
) -> tuple[Model, Model]:
    """Train copies both ways, compare weights and histories, and return the models.

    Orders and noise of later epochs show that torch's generator was left in the same state.
    """
    results: list[tuple[Model, History]] = []
    for on in (True, False):
        trained = copy.deepcopy(model)
        with bslfast.whole_networks(on):
            # With a likelihood of its own, which is trained, too.
            history = fit(trained, train, validation, **copy.deepcopy(setting))
        results.append((trained, history))
    (once, history), (by_ops, other) = results
    for name, value in once.state_dict().items():
        torch.testing.assert_close(value, by_ops.state_dict()[name], rtol=1e-8, atol=1e-10)
    for of in ("loss", "kl", "validation_log_likelihood"):
        assert getattr(history, of) == pytest.approx(getattr(other, of), rel=1e-8)
    assert (history.best_epoch, history.steps) == (other.best_epoch, other.steps)
    return once, by_ops
