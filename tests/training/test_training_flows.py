"""Epochs of flows as one call: what training by ops does, up to rounding."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import bslfast
from bslfast import programs
from bslfast.flows import MAF, NSF, ActNorm, Composite, Flow, NormalBase, RealNVP
from bslfast.training import History, checkpoint, fit, loop
from bslfast.training.optimizers import Optimizer

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(150, 3, generator=GENERATOR, dtype=torch.float64)
X[:, 1] += X[:, 0].sin()
CONTEXT = torch.randn(150, 2, generator=GENERATOR, dtype=torch.float64)
TRAIN, VALIDATION = (X[:100], CONTEXT[:100]), (X[100:], CONTEXT[100:])
# 100 = 48 + 48 + 4: batches of more than one tile, the last with fewer rows than a tile.
SETTING: dict[str, Any] = {"batch_size": 48, "lr": 0.01, "seed": 3, "objective": Flow.log_prob}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {},
    "adam with decay": {"weight_decay": 0.3},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.3},
    "sgd": {"optimizer": "sgd"},
    "sgd with momentum and decay": {"optimizer": "sgd", "momentum": 0.8, "weight_decay": 0.3},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.003},
    "rmsprop with decay": {"optimizer": "rmsprop", "lr": 0.003, "weight_decay": 0.3},
}
of_each_optimizer = pytest.mark.parametrize("change", OPTIMIZERS.values(), ids=OPTIMIZERS)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def flow(context: int = 2, dtype: torch.dtype = torch.float64) -> NSF:
    torch.manual_seed(0)
    return NSF(3, transforms=2, hidden=(9,), context=context, bins=4).to(dtype)


def both(
    model: Flow, train: tuple[Tensor, ...], *more: Any, **setting: Any
) -> tuple[tuple[Flow, History], tuple[Flow, History]]:
    """The model after training at once, and after training by ops, with the histories."""
    other = copy.deepcopy(model)
    history = fit(model, train, *more, **setting)
    with bslfast.whole_networks(False):
        return (model, history), (other, fit(other, train, *more, **setting))


def assert_close(first: Flow, second: Flow, **tolerance: float) -> None:
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(dict(first.state_dict()), dict(second.state_dict()), **tolerance)


def assert_same(first: Flow, second: Flow) -> None:
    assert_close(first, second, rtol=0, atol=0)


# --- the same as by ops ---------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.5])
@of_each_optimizer
def test_training_at_once_is_training_by_ops(
    tmp_path: Path, calls: list[int], change: dict[str, Any], clip: float | None
) -> None:
    setting = {**SETTING, "schedule": "cosine", "clip": clip, "epochs": 3, **change}
    start = flow()
    models, histories = [], []
    for name in ("once", "ops"):
        model = copy.deepcopy(start)
        with bslfast.whole_networks(name == "once"):
            history = fit(model, TRAIN, VALIDATION, checkpoint=tmp_path / name, **setting)
        models.append(model)
        histories.append(history)
    assert sum(calls) == 9
    assert_close(*models)
    assert not torch.equal(*(next(m.parameters()) for m in (start, models[0])))
    for entry in ("loss", "kl", "validation_log_likelihood"):
        first, second = (getattr(h, entry) for h in histories)
        assert first == pytest.approx(second, rel=1e-10), entry
    assert histories[0].steps == histories[1].steps == 9
    # What the optimiser remembers.
    once, ops = (checkpoint.load(tmp_path / name) for name in ("once", "ops"))
    torch.testing.assert_close(once.tensors, ops.tensors, rtol=1e-8, atol=1e-10)
    assert once.setting == ops.setting


@pytest.mark.parametrize("clip", [None, 0.5])
@of_each_optimizer
def test_steps_are_those_of_torch(change: dict[str, Any], clip: float | None) -> None:
    """One batch of all examples is the same in any order."""
    model = nn.Linear(3, 1).double()
    other = copy.deepcopy(model)

    def objective(model: nn.Linear, x: Tensor) -> Tensor:
        return -(model(x)[:, 0] - x[:, 1]).square()

    fit(model, (X,), objective=objective, epochs=6, batch_size=150, clip=clip,
        **{"lr": 0.02, **change})  # fmt: skip
    kind = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "rmsprop": torch.optim.RMSprop,
    }[change.get("optimizer", "adam")]
    own = {"lr": 0.02, "weight_decay": 0.0, **change}
    own.pop("optimizer", None)
    optimizer = kind(other.parameters(), **own)
    norms = []
    for _ in range(6):
        optimizer.zero_grad()
        (-objective(other, X)).mean().backward()
        if clip is not None:
            norms.append(nn.utils.clip_grad_norm_(other.parameters(), clip).item())
        optimizer.step()
    assert clip is None or max(norms) > clip
    torch.testing.assert_close(
        dict(model.state_dict()), dict(other.state_dict()), rtol=1e-11, atol=1e-12
    )


def test_a_norm_below_the_limit_stays() -> None:
    (first, _), (second, _) = both(flow(), TRAIN, epochs=1, clip=1e3, **SETTING)
    assert_close(first, second)
    third = flow()
    fit(third, TRAIN, epochs=1, **SETTING)
    assert_close(first, third, rtol=1e-12, atol=1e-14)


def with_base() -> Flow:
    return Flow(RealNVP(3, transforms=2, hidden=(5,)).transform, NormalBase(3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RealNVP(3, transforms=2, hidden=(33, 7)),
        lambda: MAF(3, transforms=2, hidden=(40, 40)),
        with_base,
    ],
    ids=["RealNVP", "MAF", "base"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_flows(calls: list[int], make: Callable[[], Flow], dtype: torch.dtype) -> None:
    x = X.to(dtype)
    # Steps of SGD are proportional to gradients: Adam's would show the sign of rounding.
    setting = {**SETTING, "epochs": 2, "optimizer": "sgd", "momentum": 0.5}
    (first, _), (second, _) = both(make().to(dtype), (x,), **setting)
    assert sum(calls) == 8
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if dtype == torch.float32 else {}
    assert_close(first, second, **tolerance)


def test_frozen_parameters_stay(calls: list[int]) -> None:
    model = flow()
    frozen = list(model.parameters())[::3]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in frozen]
    (first, _), (second, _) = both(model, TRAIN, epochs=2, clip=0.5, weight_decay=0.1, **SETTING)
    assert sum(calls) == 6
    assert all(map(torch.equal, frozen, before))
    assert_close(first, second)


def test_an_actnorm_sees_its_first_batch_by_ops(calls: list[int]) -> None:
    torch.manual_seed(0)
    parts = [ActNorm(3), *RealNVP(3, transforms=2, hidden=(5,)).transform.transforms]
    model = Flow(Composite(parts)).double()
    (first, _), (second, _) = both(model, TRAIN[:1], epochs=3, **SETTING)
    assert sum(calls) == 6
    assert_close(first, second)


def test_early_stopping_and_the_best_weights(calls: list[int]) -> None:
    x = X[:12]
    setting = {**SETTING, "epochs": 200, "lr": 0.03, "patience": 4}
    (first, history), (second, other) = both(flow(0), (x,), (X[100:],), **setting)
    assert len(calls) >= len(history.loss) > history.best_epoch
    assert history.stopped_early
    assert history.best_epoch == other.best_epoch
    assert history.validation_log_likelihood == pytest.approx(
        other.validation_log_likelihood, rel=1e-6
    )
    assert_close(first, second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_means_of_gradients_that_are_0_become_0(name: str, dtype: torch.dtype) -> None:
    """They do not stay among the smallest numbers, with which CPUs are slow."""
    model = MAF(3, transforms=1, hidden=(8,)).to(dtype)
    before = copy.deepcopy(model)
    momentum = 0.9 if name == "sgd" else 0.0
    optimizer = Optimizer(name, model.parameters(), lr=0.1, weight_decay=0.0, momentum=momentum)
    x = X.to(dtype)
    found = model._program(x)
    assert found is not None
    states = [optimizer.means(p) for p in found.parameters]
    for mean in itertools.chain(*states):
        if mean is not None:
            mean.fill_(torch.finfo(dtype).tiny)
    order = torch.arange(len(x))
    programs.train(
        *(found, x, None, order, 150, states, name, optimizer.numbers),
        *(optimizer.weight_decays(found.parameters), None, [0.1]),
        steps_before=0,
        kl_weights=[0.0],
    )
    layer, old = (m.transform.transforms[0].conditioner.layers[-1] for m in (model, before))
    hidden = layer.mask == 0
    assert hidden.any()
    assert torch.equal(layer.weight[hidden], old.weight[hidden])
    means = [mean for mean in optimizer.means(layer.weight) if mean is not None]
    assert means
    for mean in means:
        assert not mean[hidden].any()
        assert mean[~hidden].abs().max() > 1e-9


# --- bit for bit ----------------------------------------------------------------------------------


@of_each_optimizer
def test_resume_is_bit_identical(tmp_path: Path, calls: list[int], change: dict[str, Any]) -> None:
    setting = {**SETTING, "clip": 0.5, **change}
    straight, halves = flow(), flow()
    whole = fit(straight, TRAIN, VALIDATION, epochs=4, **setting)
    file = tmp_path / "run.safetensors"
    fit(halves, TRAIN, VALIDATION, epochs=2, checkpoint=file, **setting)
    halves = flow()
    resumed = fit(halves, TRAIN, VALIDATION, epochs=4, checkpoint=file, resume=True, **setting)
    assert sum(calls) == 24
    assert_same(straight, halves)
    assert resumed.loss == whole.loss
    assert resumed.validation_log_likelihood == whole.validation_log_likelihood


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'adam' there and 'sgd' here"),
        ({"weight_decay": 0.1}, "weight_decay is 0.0 there and 0.1 here"),
        ({"clip": 2.0}, "clip is None there and 2.0 here"),
    ],
)
def test_a_checkpoint_of_other_steps_is_refused(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    file = tmp_path / "run.safetensors"
    fit(flow(), TRAIN, epochs=1, checkpoint=file, **SETTING)
    with pytest.raises(ValueError, match=text):
        fit(flow(), TRAIN, epochs=2, checkpoint=file, resume=True, **SETTING, **change)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_and_calls_change_nothing(
    monkeypatch: pytest.MonkeyPatch, calls: list[int], threads: int, dtype: torch.dtype
) -> None:
    train = tuple(value.to(dtype) for value in TRAIN)
    setting = {**SETTING, "epochs": 2, "batch_size": 95, "clip": 0.5}
    # More parameters than one chunk of the update has.
    torch.manual_seed(0)
    model = NSF(3, transforms=2, hidden=(64, 64), context=2).to(dtype)
    assert sum(p.numel() for p in model.parameters()) > 8192
    other = copy.deepcopy(model)
    history = fit(model, train, **setting)
    monkeypatch.setattr(loop, "_SECONDS_PER_CALL", 0.0)
    del calls[:]
    torch.set_num_threads(1)
    assert fit(other, train, **setting).loss == history.loss
    assert calls == [1] * 4
    assert_same(model, other)


# --- when steps are taken by ops ------------------------------------------------------------------


HOOKS: dict[str, Callable[[Flow, Callable[..., None]], Any]] = {
    "of a module": lambda f, hook: f.transform.register_forward_hook(hook),
    "of a parameter": lambda f, hook: next(f.parameters()).register_hook(hook),
    "after a gradient": lambda f, hook: next(f.parameters()).register_post_accumulate_grad_hook(
        hook
    ),
    "of optimisers": lambda f, hook: register_optimizer_step_pre_hook(hook),
}


@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS)
def test_hooks_are_called(calls: list[int], register: Callable[..., Any]) -> None:
    seen: list[int] = []
    model = flow()
    handle = register(model, lambda *_: seen.append(1))
    fit(model, TRAIN, epochs=1, **SETTING)
    handle.remove()
    assert len(seen) >= 3
    assert not calls
    fit(model, TRAIN, epochs=1, **SETTING)
    assert calls


class Other(NSF):
    """A flow with a density of its own."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return 2 * super().log_prob(x, context)


def test_other_objectives(calls: list[int]) -> None:
    fit(flow(), TRAIN, epochs=1, **{**SETTING, "objective": lambda m, x, c: m.log_prob(x, c)})
    fit(Other(3, context=2).double(), TRAIN, epochs=1, **{**SETTING, "objective": Other.log_prob})
    assert not calls
    with pytest.raises(ValueError, match="context: expected a tensor of shape"):
        fit(flow(), TRAIN[:1], epochs=1, **SETTING)
    with pytest.raises(ValueError, match="objective: expected a function that returns"):
        fit(flow(0), (X.unsqueeze(1),), epochs=1, **SETTING)
    with pytest.raises(TypeError, match=r"x: expected torch\.float64, the dtype of the flow"):
        fit(flow(0), (X.float(),), epochs=1, **SETTING)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_modes_of_autograd(calls: list[int]) -> None:
    with torch.autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match="nan values"):
        fit(flow(), TRAIN, epochs=5, **{**SETTING, "lr": 1e200})
    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        fit(flow(), TRAIN, epochs=1, **SETTING)
    assert not calls


def test_parameters_that_share_memory(calls: list[int]) -> None:
    model = flow(0)
    first, second = (c.conditioner.layers[0].bias for c in model.transform.transforms[:2])
    second.data = first.data
    fit(model, (X,), epochs=1, **SETTING)
    assert not calls


# --- what torch sees ------------------------------------------------------------------------------


def test_versions_and_gradients() -> None:
    model = flow()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    parameter = next(model.parameters())
    graph = parameter.square().sum()
    fit(model, TRAIN, epochs=1, **SETTING)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        graph.backward()


def test_a_diverging_run_stops_and_leaves_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    file = tmp_path / "run.safetensors"
    fit(flow(), TRAIN, epochs=1, checkpoint=file, **SETTING)
    before = file.read_bytes()
    setting = {**SETTING, "epochs": 5, "lr": 1e200}
    with pytest.raises(FloatingPointError, match=r"fit: the loss became .* in epoch"):
        fit(flow(), TRAIN, **setting)
    assert sum(calls) > 3
    # The last step alone: no loss has been computed after it.
    setting |= {"epochs": 1, "batch_size": 100, "lr": 1e308, "optimizer": "sgd"}
    with pytest.raises(FloatingPointError, match=r"fit: after epoch 1, .*expected finite"):
        fit(flow(), TRAIN, **setting, weight_decay=1e300)
    assert file.read_bytes() == before


def test_an_interrupt_between_calls(monkeypatch: pytest.MonkeyPatch, calls: list[int]) -> None:
    """It leaves the weights of the steps done."""
    monkeypatch.setattr(loop, "_SECONDS_PER_CALL", 0.0)
    number = itertools.count()

    def interrupted(function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if next(number) == 2:
            raise KeyboardInterrupt
        return function(*args, **more)

    once, by_ops = flow(), flow()
    monkeypatch.setattr(programs, "train", functools.partial(interrupted, programs.train))
    with pytest.raises(KeyboardInterrupt):
        fit(once, TRAIN, epochs=1, **SETTING)
    assert calls == [1, 1]
    number = itertools.count()
    monkeypatch.setattr(loop, "negative_elbo", functools.partial(interrupted, loop.negative_elbo))
    with bslfast.whole_networks(False), pytest.raises(KeyboardInterrupt):
        fit(by_ops, TRAIN, epochs=1, **SETTING)
    assert_close(once, by_ops)
