"""Courses of the weight of the KL, and what training makes of them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from bslfast.bnn import BayesianMLP
from bslfast.training import fit
from bslfast.training.schedules import Cyclic, LinearWarmup, MinibatchWeights, Schedule


def test_linear_warmup_rises_and_stays() -> None:
    weights = [LinearWarmup(2.5, beta=0.5)(step, 4) for step in range(20)]
    assert weights == pytest.approx([0.5 * min(1, step / 10) for step in range(20)])


def test_cycles_begin_at_0_and_end_at_beta() -> None:
    schedule = Cyclic(epochs=6, cycles=3, ramp=0.25, beta=2.0)
    weights = [schedule(step, 10) for step in range(80)]
    for start in (0, 20, 40):
        assert weights[start : start + 5] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6])
        assert weights[start + 5 : start + 20] == [2.0] * 15
    assert weights[60:] == [2.0] * 20
    assert [Cyclic(1, 1, ramp=1.0)(step, 4) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("batches", [1, 2, 7, 5000])
def test_minibatch_weights_halve_and_have_the_average_1(batches: int) -> None:
    weights = [MinibatchWeights()(step, batches) for step in range(batches)]
    assert sum(weights) / batches == pytest.approx(1)
    assert all(b == pytest.approx(a / 2) for a, b in itertools.pairwise(weights[:50]))
    assert MinibatchWeights()(batches, batches) == weights[0]


def test_training_takes_the_weight_of_each_step() -> None:
    """The loss of steps that change nothing is the negative ELBO with the weights' average."""
    torch.manual_seed(0)
    model = BayesianMLP(3, (4,), 1)
    x, y = torch.randn(40, 3), torch.randn(40, 1)
    setting: dict[str, Any] = {"epochs": 2, "batch_size": 10, "lr": 1e-12}
    without, whole, rising = (
        fit(model, (x, y), beta=beta, **setting).loss for beta in (0.0, 1.0, LinearWarmup(2))
    )
    kl = [one - other for one, other in zip(whole, without, strict=True)]
    # The averages of 0, 1/8, ... over each epoch of 4 steps.
    expected = [without[0] + kl[0] * 3 / 16, without[1] + kl[1] * 11 / 16]
    assert rising == pytest.approx(expected, rel=1e-5)


def test_a_course_of_ones_own() -> None:
    seen = []

    class Noted(Schedule):
        def __call__(self, step: int, steps_per_epoch: int) -> float:
            seen.append((step, steps_per_epoch))
            return 1.0

    x, y = torch.randn(40, 3), torch.randn(40, 1)
    torch.manual_seed(0)
    first, second = BayesianMLP(3, (4,), 1), BayesianMLP(3, (4,), 1)
    second.load_state_dict(first.state_dict())
    fit(first, (x, y), epochs=2, batch_size=15, beta=Noted())
    fit(second, (x, y), epochs=2, batch_size=15)
    assert seen == [(step, 3) for step in range(6)]
    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LinearWarmup(0), "epochs: expected a finite number above 0, got 0"),
        (lambda: LinearWarmup(3, beta=-1.0), "beta: .*at least 0, got -1.0"),
        (lambda: Cyclic(0.0), "epochs: expected a finite number above 0, got 0.0"),
        (lambda: Cyclic(10, cycles=0), "cycles: expected an integer of at least 1, got 0"),
        (lambda: Cyclic(10, ramp=1.5), "ramp: expected a number above 0 and at most 1, got 1.5"),
        (lambda: Cyclic(10, beta=-1.0), "beta: .*at least 0, got -1.0"),
    ],
)
def test_schedules_refuse(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


# --- missing targets ------------------------------------------------------------------------------


def test_missing_targets_take_no_part_in_training() -> None:
    """Whatever stands in their place; the others train as if the missing ones had no loss."""
    torch.manual_seed(0)
    x, y, mask = torch.randn(40, 3), torch.randn(40, 2), torch.rand(40, 2) < 0.7
    start = BayesianMLP(3, (8,), 2).state_dict()
    found = []
    for filler in (torch.nan, 0.0, 1e30):
        model = BayesianMLP(3, (8,), 2)
        model.load_state_dict(start)
        gaps = torch.where(mask, y, filler)
        part = (x[:30], gaps[:30], mask[:30])
        held_out = (x[30:], gaps[30:], mask[30:])
        history = fit(model, part, held_out, epochs=3, batch_size=10)
        found.append((model, history))
    for model, history in found[1:]:
        assert all(map(torch.equal, model.parameters(), found[0][0].parameters()))
        assert history.loss == found[0][1].loss
        assert history.validation_log_likelihood == found[0][1].validation_log_likelihood


def test_a_target_that_is_always_missing_teaches_nothing() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 2), torch.randn(64, 2)
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    mask = torch.tensor([True, False]).expand(64, 2)
    from bslfast.likelihoods import Normal

    fit(model, (x, y, mask), epochs=2, likelihood=Normal(2))
    assert torch.equal(model.weight[1], before[1])
    assert not torch.equal(model.weight[0], before[0])


def test_missing_labels() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    y, mask = (x[:, 0] > 0).long(), torch.rand(64) < 0.8
    model = BayesianMLP(2, (8,), 2, likelihood="categorical")
    fit(model, (x, torch.where(mask, y, 99), mask), epochs=100, lr=0.03, batch_size=32)
    assert (model(x).argmax(1) == y).double().mean() > 0.9


def test_wrong_masks_are_refused() -> None:
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    model = BayesianMLP(2, (4,), 1)
    with pytest.raises(TypeError, match="mask: expected a bool tensor"):
        fit(model, (x, y, torch.ones(8, 1)), epochs=1)
    with pytest.raises(ValueError, match=r"mask: expected the shape of train y, \(8, 1\), got"):
        fit(model, (x, y, torch.ones(8).bool()), epochs=1)
    y[3] = torch.nan
    with pytest.raises(ValueError, match="train y: expected finite values, got NaN"):
        fit(model, (x, y, torch.ones(8, 1).bool()), epochs=1)
