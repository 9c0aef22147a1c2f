"""The training loop: results, early stopping, checkpoints, resume, interruption."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bslfast import _files, programs
from bslfast.bnn import BayesianMLP
from bslfast.likelihoods import Categorical, Normal
from bslfast.nn import to_bayesian
from bslfast.predict import predict
from bslfast.training import History, checkpoint, fit, loop
from bslfast.training.schedules import LinearWarmup

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(96, 3, generator=GENERATOR)
Y = X[:, :1].sin() + 0.1 * torch.randn(96, 1, generator=GENERATOR)
TRAIN, VALIDATION = (X[:64], Y[:64]), (X[64:], Y[64:])
SETTING: dict[str, Any] = {"batch_size": 20, "lr": 0.01, "seed": 3}  # 64 = 20 + 20 + 20 + 4


def network(seed: int = 0, hidden: tuple[int, ...] = (8,)) -> BayesianMLP:
    torch.manual_seed(seed)
    return BayesianMLP(3, hidden, 1, likelihood="normal")


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(first: nn.Module, second: nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_training_learns() -> None:
    model = network()
    history = fit(model, TRAIN, VALIDATION, epochs=300, lr=0.02, batch_size=32)
    prediction = predict(model, VALIDATION[0], 200, seed=0)
    error = (prediction.mean - VALIDATION[1]).square().mean().sqrt().item()
    assert error < 0.5 * VALIDATION[1].std().item()
    assert history.loss[-1] < history.loss[0]
    assert len(history.loss) == len(history.kl) == len(history.validation_log_likelihood) == 300
    assert history.steps == 600
    assert history.kl[-1] > 0
    assert 0 < history.seconds < 60


def test_deterministic_twin_trains_by_the_same_loop() -> None:
    torch.manual_seed(0)
    model, head = nn.Linear(3, 1), Normal(1)
    target = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.25
    history = fit(model, (X, target), epochs=400, lr=0.03, likelihood=head)
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.02, rtol=0)
    assert head.scale.item() < 0.1  # the likelihood trains too
    assert history.kl == [0.0] * 400
    assert history.validation_log_likelihood == []
    assert history.best_epoch == 400


def test_classification_trains() -> None:
    torch.manual_seed(0)
    labels = (X[:, 0] > 0).long()
    model = BayesianMLP(3, (8,), 2, likelihood="categorical")
    fit(model, (X, labels), epochs=200, lr=0.02, batch_size=32)
    assert (predict(model, X, 50).mean.argmax(1) == labels).float().mean() > 0.93


def test_loss_is_the_negative_elbo_per_example() -> None:
    torch.manual_seed(0)
    model, head = nn.Linear(3, 1), Normal(1)
    before = head.log_prob(model(X), Y).mean().item()
    history = fit(model, (X, Y), epochs=1, lr=1e-9, batch_size=96, likelihood=head)
    assert history.loss[0] == pytest.approx(-before, rel=1e-5)


def test_every_example_is_seen_once_an_epoch_in_a_new_order() -> None:
    seen: list[list[float]] = []

    class Watch(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 0].tolist())
            return super().forward(x)

    fit(Watch(3, 1), TRAIN, epochs=2, likelihood=Normal(1), **SETTING)
    assert [len(batch) for batch in seen] == [20, 20, 20, 4] * 2
    first, second = (list(itertools.chain(*seen[i : i + 4])) for i in (0, 4))
    assert sorted(first) == sorted(second) == sorted(X[:64, 0].tolist())
    assert first != second


def test_same_seed_same_weights_and_generators_untouched() -> None:
    models = [network() for _ in range(3)]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    fit(models[0], TRAIN, VALIDATION, epochs=3, **SETTING)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(12)
    fit(models[1], TRAIN, VALIDATION, epochs=3, **SETTING)
    assert_same(models[0], models[1])
    fit(models[2], TRAIN, VALIDATION, epochs=3, **{**SETTING, "seed": 4})
    assert any(
        not torch.equal(value, models[2].state_dict()[name])
        for name, value in weights(models[0]).items()
    )


def test_cosine_schedule(tmp_path: Path) -> None:
    """With a loss whose gradient is always 1, Adam's steps are the learning rates."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.zeros((), dtype=torch.float64))

    seen: list[float] = []

    def objective(model: One, x: Tensor) -> Tensor:
        seen.append(model.at.item())
        return model.at + 0 * x

    model = One()
    x = (torch.zeros(5, dtype=torch.float64),)
    setting: dict[str, Any] = {"batch_size": 2, "lr": 0.1, "objective": objective}
    fit(model, x, epochs=4, schedule="cosine", **setting)  # 3 steps each
    rates = [b - a for a, b in itertools.pairwise([*seen, model.at.item()])]
    expected = [0.05 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert rates == pytest.approx(expected, rel=1e-5)

    file, halves = tmp_path / "run.safetensors", One()
    more = {**setting, "schedule": "cosine", "checkpoint": file}
    fit(halves, x, epochs=4, **more)
    with pytest.raises(ValueError, match="schedule is 'cosine over 4 epochs' there"):
        fit(halves, x, epochs=8, resume=True, **more)
    with pytest.raises(ValueError, match="schedule: expected one of 'constant', 'cosine'"):
        fit(One(), x, epochs=1, schedule="linear", **setting)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_cut_short_goes_on_by_its_schedule(tmp_path: Path, schedule: str) -> None:
    file = tmp_path / "run.safetensors"
    more: dict[str, Any] = {**SETTING, "schedule": schedule, "epochs": 6}
    straight, cut = network(), network()
    fit(straight, TRAIN, VALIDATION, **more)
    calls = itertools.count()

    def stop(self: loop._Run, original: Any = loop._Run.epoch) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        original(self)
        self.save(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(cut, TRAIN, VALIDATION, **more)
    fit(cut, TRAIN, VALIDATION, checkpoint=file, resume=True, **more)
    assert_same(straight, cut)


# --- early stopping -------------------------------------------------------------------------------


def test_early_stopping_restores_the_best_weights() -> None:
    """The model overfits on purpose: few noisy examples, no KL, many weights."""
    torch.manual_seed(0)
    x = torch.randn(24, 3)
    y = torch.randn(24, 1)
    train, validation = (x[:12], y[:12]), (x[12:], y[12:])
    model = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
    head = Normal(1)
    history = fit(model, train, validation, epochs=500, lr=0.02, patience=15, likelihood=head)
    scores = history.validation_log_likelihood
    assert history.stopped_early
    assert len(scores) == history.best_epoch + 15
    assert scores[history.best_epoch - 1] == max(scores)
    again = head.log_prob(model(validation[0]), validation[1]).mean().item()
    assert again == pytest.approx(max(scores), abs=1e-5)
    assert max(scores) > scores[-1] + 0.01


# --- checkpoints and resume -----------------------------------------------------------------------


@pytest.mark.parametrize("validation", [VALIDATION, None])
def test_resume_is_bit_identical(tmp_path: Path, validation: tuple[Tensor, Tensor] | None) -> None:
    file = tmp_path / "deep" / "run.safetensors"
    straight, halves = network(), network()
    whole = fit(straight, TRAIN, validation, epochs=10, **SETTING)
    fit(halves, TRAIN, validation, epochs=5, checkpoint=file, **SETTING)
    halves = network(seed=7)  # the weights come from the file
    torch.manual_seed(1234)
    resumed = fit(halves, TRAIN, validation, epochs=10, checkpoint=file, resume=True, **SETTING)
    assert_same(straight, halves)
    for key in ("loss", "kl", "validation_log_likelihood", "best_epoch", "steps"):
        assert getattr(resumed, key) == getattr(whole, key)
    assert os.listdir(file.parent) == ["run.safetensors"]


def test_resume_with_a_likelihood_beside_the_model(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    torch.manual_seed(0)
    start = nn.Linear(3, 1).state_dict()
    ends = []
    for stops in ([10], [4, 10]):
        for i, epochs in enumerate(stops):
            model, head = nn.Linear(3, 1), Normal(1)
            model.load_state_dict(start)
            fit(
                model, TRAIN, epochs=epochs, likelihood=head, checkpoint=file, resume=i > 0,
                **SETTING,
            )  # fmt: skip
        ends.append((model, head))
    for first, second in zip(*ends, strict=True):
        assert_same(first, second)


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    model = network()
    first = fit(model, TRAIN, VALIDATION, epochs=4, checkpoint=file, **SETTING)
    before = weights(model)
    second = fit(model, TRAIN, VALIDATION, epochs=4, checkpoint=file, resume=True, **SETTING)
    assert first.loss == second.loss
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_checkpoint_is_safetensors_with_json(tmp_path: Path) -> None:
    from safetensors import safe_open

    file = tmp_path / "run.safetensors"
    history = fit(network(), TRAIN, VALIDATION, epochs=2, checkpoint=file, **SETTING)
    with safe_open(file, framework="pt") as opened:
        names = set(opened.keys())
        metadata = opened.metadata()
    assert json.loads(metadata["state"])["loss"] == history.loss
    assert json.loads(metadata["setting"])["batch_size"] == 20
    for prefix in ("model.", "best.", "adam.step.", "adam.exp_avg.", "adam.exp_avg_sq.", "rng.cpu"):
        assert any(name.startswith(prefix) for name in names), prefix


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lr": 0.5}, "lr is 0.01 there and 0.5 here"),
        ({"batch_size": 7}, "batch_size is 20 there and 7 here"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"beta": 0.5}, "beta is 1.0 there and 0.5 here"),
        ({"beta": LinearWarmup(2)}, r"beta is 1.0 there and .*LinearWarmup\(epochs=2, beta=1.0\)"),
        ({"model": lambda: network(hidden=(9,))}, "the (model|table of weights) is .* there and"),
        (
            {"train": (X[:63], Y[:63])},
            r"the shape of the training data is \[\[64, 3\], \[64, 1\]\]",
        ),
        ({"train": (X[:64] + 1, Y[:64])}, "the checksum of the training data is"),
        ({"validation": (X[64:] + 1, Y[64:])}, "run: the checksum of the validation data is"),
        ({"validation": (X[65:], Y[65:])}, "run: the shape of the validation data is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    file = tmp_path / "run.safetensors"
    fit(network(), TRAIN, VALIDATION, epochs=1, checkpoint=file, **SETTING)
    before = file.read_bytes()
    arguments = {"train": TRAIN, "validation": VALIDATION, **SETTING, **change}
    model = arguments.pop("model", network)()
    start = weights(model)
    with pytest.raises(ValueError, match=text) as caught:
        fit(model, epochs=2, checkpoint=file, resume=True, **arguments)
    assert str(file) in str(caught.value)
    assert file.read_bytes() == before
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in start.items())


@pytest.mark.parametrize("damage", ["empty", "header", "half", "other"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "run.safetensors"
    fit(network(), TRAIN, epochs=1, checkpoint=file, **SETTING)
    content = file.read_bytes()
    if damage == "other":
        save_file({"a": torch.zeros(1)}, file)
    else:
        file.write_bytes(content[: {"empty": 0, "header": 20, "half": len(content) // 2}[damage]])
    expected = "expected the format" if damage == "other" else "expected a whole safetensors file"
    with pytest.raises(ValueError, match=expected) as caught:
        fit(network(), TRAIN, epochs=2, checkpoint=file, resume=True, **SETTING)
    assert str(file) in str(caught.value)


def generator_with_noise_of_nan(state: Tensor) -> Tensor:
    """A generator's state in which the stored second normal number is NaN."""
    generator = torch.Generator()
    before = generator.get_state().clone()
    torch.randn((), generator=generator)
    after = generator.get_state()
    # The last 40 bytes: three doubles, a flag whether they are valid, and the same as a float.
    after[-40:-16] = torch.tensor([math.nan] * 3, dtype=torch.float64).view(torch.uint8)
    assert not torch.equal(before[-16:], after[-16:])
    return after


# Contents that no run writes: the entry, its replacement, and the text of the error.
SPOILED: dict[str, tuple[str, Any, str]] = {
    "short moments": (
        "adam.exp_avg.layers.0.weight_loc",
        lambda v: torch.zeros(2),
        r"expected a tensor of shape \(8, 3\) .* got a tensor of shape \(2,\)",
    ),
    "moments of another dtype": (
        "adam.exp_avg_sq.likelihood.raw_scale",
        lambda v: v.double(),
        "expected .* dtype float32, got .* dtype float64",
    ),
    "moments that are missing": (
        "adam.exp_avg.layers.1.bias_loc",
        lambda v: None,
        "expected a tensor, got none",
    ),
    "negative second moments": (
        "adam.exp_avg_sq.layers.0.bias_loc",
        lambda v: v.neg_(),
        "expected numbers from 0 to inf, got -",
    ),
    "moments of NaN": (
        "adam.exp_avg.layers.0.bias_loc",
        lambda v: v.fill_(math.nan),
        "expected finite values, got NaN: 8 of 8",
    ),
    "a step for each weight": (
        "adam.step.layers.0.bias_loc",
        lambda v: v.expand(8),
        r"expected a tensor of shape \(\)",
    ),
    "a negative step": (
        "adam.step.layers.0.bias_loc",
        lambda v: v.neg_(),
        "expected numbers from 0 to 8, got -8 to -8",
    ),
    "more steps than there were": (
        "adam.step.layers.0.bias_loc",
        lambda v: v.add_(1),
        "expected numbers from 0 to 8, got 9 to 9",
    ),
    "infinite weights": (
        "model.layers.0.weight_loc",
        lambda v: v.index_fill(0, torch.tensor([1]), math.inf),
        r"expected finite values, got infinity: 3 of 24 .* first at index \(1, 0\)",
    ),
    "weights of another dtype": ("model.layers.0.weight_loc", Tensor.half, "got .* float16"),
    "weights of another shape": ("model.layers.0.weight_loc", Tensor.t, r"got .*\(3, 8\)"),
    "weights that are missing": ("model.layers.0.weight_loc", lambda v: None, "got none"),
    "best weights of NaN": ("best.layers.1.bias_loc", lambda v: v.fill_(math.nan), "got NaN"),
    "best weights that are missing": ("best.layers.1.bias_loc", lambda v: None, "got none"),
    "weights of no layer": ("model.more", lambda v: torch.ones(1), "expected no such tensor, got"),
    "a short generator": ("rng.cpu", lambda v: v[:-1], r"shape \(5056,\) .* got .*\(5055,\)"),
    "no generator": ("rng.cpu", lambda v: None, "expected a tensor, got none"),
    "a generator of zeros": ("rng.cpu", Tensor.zero_, "expected the state of a generator, got"),
    "a generator of NaN": (
        "rng.cpu",
        generator_with_noise_of_nan,
        "expected the state of a generator, got NaN",
    ),
    "a generator of ones": (
        "rng.cpu",
        lambda v: v.fill_(255),
        "expected the state of a generator, got",
    ),
}
SPOILED_HISTORY: dict[str, tuple[str, Any, str]] = {
    "no losses": ("loss", [], "expected a list of numbers, got"),
    "losses that are no list": ("loss", {"0": 1.0}, "expected a list of numbers, got"),
    "a loss of NaN": ("loss", [0.5, math.nan], "expected 2 finite numbers for 2 epochs"),
    "a loss that is text": ("loss", [0.5, "0.4"], "expected 2 finite numbers"),
    "a loss that is a bool": ("loss", [0.5, True], "expected 2 finite numbers"),
    "a loss beyond floats": ("loss", [0.5, 10**400], "expected 2 finite numbers"),
    "one divergence less": ("kl", [0.5], "expected 2 finite numbers for 2 epochs with validation"),
    "one score less": ("validation_log_likelihood", [0.5], "expected 2 finite numbers"),
    "an infinite score": ("validation_log_likelihood", [0.5, math.inf], "expected 2 finite"),
    "a best epoch to come": ("best_epoch", 9, "expected [12], got 9"),
    "a best epoch before the first": ("best_epoch", 0, "expected [12], got 0"),
    "a best epoch that is a float": ("best_epoch", 2.5, "expected [12], got 2.5"),
    "fewer steps": ("steps", 7, "expected 8, got 7"),
    "steps that are text": ("steps", "8", "expected 8, got '8'"),
    "stopped by a number": ("stopped_early", 1, "expected true or false, got 1"),
    "negative seconds": ("seconds", -1.0, "expected a finite number of at least 0, got -1.0"),
    "seconds that are null": ("seconds", None, "expected a finite number of at least 0, got None"),
    "an entry more": ("more", 1, "expected no such entry, got 1"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of two epochs of four steps."""
    file = tmp_path_factory.mktemp("run") / "run.safetensors"
    fit(network(), TRAIN, VALIDATION, epochs=2, checkpoint=file, **SETTING)
    return file.read_bytes()


def refuse(file: Path, entry: str, text: str) -> None:
    """Resuming from a file raises, and leaves the model and the generators unchanged."""
    model = network(seed=7)
    start, state, content = weights(model), torch.get_rng_state(), file.read_bytes()
    with pytest.raises(ValueError, match=text) as caught:
        fit(model, TRAIN, VALIDATION, epochs=3, checkpoint=file, resume=True, **SETTING)
    assert str(caught.value).startswith(f"checkpoint {file}, {entry}: ")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in start.items())
    assert torch.equal(state, torch.get_rng_state())
    assert file.read_bytes() == content


@pytest.mark.parametrize(("entry", "change", "text"), SPOILED.values(), ids=SPOILED)
def test_a_checkpoint_with_spoiled_tensors_is_refused(
    tmp_path: Path, written: bytes, entry: str, change: Any, text: str
) -> None:
    file = tmp_path / "run.safetensors"
    file.write_bytes(written)
    content = checkpoint.load(file)
    value = content.tensors.pop(entry, None)
    changed = change(value)
    if changed is not None:
        content.tensors[entry] = changed
    checkpoint.save(file, content)
    refuse(file, entry, text)


@pytest.mark.parametrize(("entry", "value", "text"), SPOILED_HISTORY.values(), ids=SPOILED_HISTORY)
def test_a_checkpoint_with_a_spoiled_history_is_refused(
    tmp_path: Path, written: bytes, entry: str, value: Any, text: str
) -> None:
    file = tmp_path / "run.safetensors"
    file.write_bytes(written)
    content = checkpoint.load(file)
    content.state[entry] = value
    checkpoint.save(file, content)
    refuse(file, entry, text)


def test_a_checkpoint_without_a_part_of_the_history_is_refused(
    tmp_path: Path, written: bytes
) -> None:
    file = tmp_path / "run.safetensors"
    file.write_bytes(written)
    content = checkpoint.load(file)
    for entry, value in content.state.items():
        state = {key: other for key, other in content.state.items() if key != entry}
        checkpoint.save(file, content._replace(state=state))
        refuse(file, entry, "expected an entry, got nothing")
        if isinstance(value, list):  # of three epochs, which the others do not have
            state = {**content.state, entry: [*value, 0.5]}
            checkpoint.save(file, content._replace(state=state))
            refuse(file, "kl" if entry == "loss" else entry, "expected [23] finite numbers")


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "null", '"a"', "{", "[" * 100_000, "9" * 5000], ids=range(8)
)
@pytest.mark.parametrize("entry", ["setting", "state"])
def test_a_checkpoint_with_other_json_is_refused(
    tmp_path: Path, written: bytes, entry: str, text: str
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load, save_file

    file = tmp_path / "run.safetensors"
    file.write_bytes(written)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(load(written), file, {**metadata, entry: text})
    refuse(file, entry, "expected a JSON object in the metadata, got")


def test_a_checkpoint_of_a_run_with_or_without_validation_is_another(
    tmp_path: Path, written: bytes
) -> None:
    """Best weights of the other run would belong to an epoch that this run does not have."""
    file = tmp_path / "run.safetensors"
    file.write_bytes(written)
    with pytest.raises(ValueError, match="whether there is validation data is True there and Fa"):
        fit(network(), TRAIN, epochs=3, checkpoint=file, resume=True, **SETTING)
    fit(network(), TRAIN, epochs=2, checkpoint=file, **SETTING)
    with pytest.raises(ValueError, match="whether there is validation data is False there and T"):
        fit(network(), TRAIN, VALIDATION, epochs=3, checkpoint=file, resume=True, **SETTING)


class Masked(nn.Linear):
    """A buffer of -inf, and a parameter that never has a gradient."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.unused = nn.Parameter(torch.ones(2))


def test_masks_and_unused_parameters_go_through_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    torch.manual_seed(0)
    straight, halves = Masked(), Masked()
    halves.load_state_dict(straight.state_dict())
    heads = Normal(1), Normal(1)
    fit(straight, TRAIN, VALIDATION, epochs=4, likelihood=heads[0], **SETTING)
    for epochs in (2, 4):
        fit(
            halves, TRAIN, VALIDATION, epochs=epochs, likelihood=heads[1], checkpoint=file,
            resume=epochs == 4, **SETTING,
        )  # fmt: skip
    assert_same(straight, halves)
    assert not checkpoint.load(file).tensors["adam.exp_avg_sq.0.unused"].any()


def test_resume_of_weights_that_are_not_contiguous(tmp_path: Path) -> None:
    """Adam's moments are read in the order of the weights' memory."""
    file = tmp_path / "run.safetensors"
    torch.manual_seed(0)

    def convolution() -> nn.Module:
        layer = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 1))

    straight, halves = convolution(), convolution()
    halves.load_state_dict(straight.state_dict())
    train = (torch.randn(64, 3, 2, 2), Y[:64])
    heads = Normal(1), Normal(1)
    fit(straight, train, epochs=4, likelihood=heads[0], **SETTING)
    fit(halves, train, epochs=2, likelihood=heads[1], checkpoint=file, **SETTING)
    fit(halves, train, epochs=4, likelihood=heads[1], checkpoint=file, resume=True, **SETTING)
    assert not straight[0].weight.is_contiguous()
    assert_same(straight, halves)


@pytest.mark.parametrize("where", ["weight", "moments"])
def test_no_checkpoint_is_written_that_cannot_be_gone_on_from(tmp_path: Path, where: str) -> None:
    """The loss of an epoch may be finite although its last step, or a square, was not."""
    file = tmp_path / "run.safetensors"

    class Grow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(3e38 if where == "weight" else 1.0))

    def objective(model: Grow, x: Tensor) -> Tensor:
        return 0.0 * x + (1e-3 if where == "weight" else 1e25) * model.weight

    lr = 1e38 if where == "weight" else 0.1
    setting: dict[str, Any] = {"lr": lr, "objective": objective, "checkpoint": file}
    name = "model.weight" if where == "weight" else "adam.exp_avg_sq.weight"
    wanted = f"fit: after epoch 1, {name}: expected finite.* a smaller lr than .* may help"
    with pytest.raises(FloatingPointError, match=wanted):
        fit(Grow(), (torch.zeros(4),), epochs=1, **setting)
    assert not file.exists()
    with pytest.raises(FloatingPointError, match=f"fit: after epoch 1, {name}: expected finite"):
        fit(Grow(), (torch.zeros(4),), epochs=1, **{**setting, "checkpoint": None})


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"none.safetensors: expected a file to resume from"
    ):
        fit(network(), TRAIN, epochs=1, checkpoint=tmp_path / "none.safetensors", resume=True)
    with pytest.raises(ValueError, match="checkpoint: expected a file to resume from, got None"):
        fit(network(), TRAIN, epochs=1, resume=True)


# --- interruption ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["epoch", "write"])
def test_interruption_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    # All by ops: a class with a forward of its own has no program, and linear layers have.
    monkeypatch.setattr(programs, "are_on", lambda: False)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)  # after every epoch
    file = tmp_path / "run.safetensors"
    calls = itertools.count(1)

    class Interrupted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if where == "epoch" and next(calls) == 14:  # in the fourth epoch of four batches
                raise KeyboardInterrupt
            return super().forward(x)

    if where == "write":
        import safetensors.torch

        save = safetensors.torch.save_file

        def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
            save(tensors, path, metadata)
            if next(calls) == 4:
                path.write_bytes(path.read_bytes()[:100])
                raise KeyboardInterrupt

        monkeypatch.setattr(safetensors.torch, "save_file", half)

    torch.manual_seed(0)
    start = nn.Linear(3, 1).state_dict()

    def run(kind: type[nn.Linear], **more: Any) -> tuple[nn.Module, History]:
        model = kind(3, 1)
        model.load_state_dict(start)
        return model, fit(model, TRAIN, epochs=6, likelihood=Normal(1), **SETTING, **more)

    straight, whole = run(nn.Linear)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted, checkpoint=file)
    assert os.listdir(tmp_path) == ["run.safetensors"]
    assert len(checkpoint.load(file).state["loss"]) == 3
    model = nn.Linear(3, 1)
    # The class is part of what must agree; a linear layer by another name is the same here.
    content = checkpoint.load(file)
    name = content.setting["the model"].replace("Interrupted", "Linear")
    checkpoint.save(file, content._replace(setting={**content.setting, "the model": name}))
    resumed = fit(
        model, TRAIN, epochs=6, likelihood=Normal(1), checkpoint=file, resume=True, **SETTING
    )
    assert_same(straight, model)
    assert resumed.loss == whole.loss


KILLED = """
import sys, torch
from bslfast.training import fit, loop
from bslfast.likelihoods import Normal
loop.SECONDS_BETWEEN_CHECKPOINTS = -1.0
x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
print("ready", flush=True)
head, data, file = Normal(1), (x, x[:, :1]), sys.argv[1]
fit(torch.nn.Linear(3, 1), data, epochs=10**6, likelihood=head, checkpoint=file)
"""


def test_a_kill_at_any_time_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    for wait in (0.3, 0.31, 0.37):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(file)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,  # not the clone's root, whose sources would hide the installed package
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        state = checkpoint.load(file).state
        assert len(state["loss"]) >= 1
        file.unlink()


def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError, match="half"), _files.atomic(file) as temporary:  # noqa: PT012
        temporary.write_text("ne")
        raise RuntimeError("half")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_diverging_run_stops_and_leaves_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    file = tmp_path / "run.safetensors"
    calls = itertools.count(1)

    class Diverging(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (math.nan if next(calls) == 10 else 1.0)

    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 3; a smaller lr"):
        fit(Diverging(3, 1), TRAIN, epochs=9, likelihood=Normal(1), checkpoint=file, **SETTING)
    assert len(checkpoint.load(file).state["loss"]) == 2


# --- data and scores that are not finite ----------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["train x", "train y", "validation x", "validation y"])
def test_data_that_are_not_finite_are_named_before_the_first_step(name: str, bad: float) -> None:
    parts = {"train": list(TRAIN), "validation": list(VALIDATION)}
    argument, part = name.split()
    spoiled = parts[argument]["xy".index(part)].clone()
    spoiled[5] = bad
    parts[argument]["xy".index(part)] = spoiled
    model, kind = network(), "NaN" if math.isnan(bad) else "infinity"
    start, n = weights(model), spoiled[5].numel()
    text = (
        rf"^{name}: expected finite values, got {kind}: {n} of {spoiled.numel()} values .*\(5, 0\)"
    )
    with pytest.raises(ValueError, match=text):
        fit(model, **parts, epochs=2, **SETTING)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in start.items())
    with pytest.raises(ValueError, match=r"^train 1: expected finite values"):
        fit(model, (spoiled.clone().zero_(), spoiled), objective=lambda *_: None, epochs=1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_data_that_are_no_floating_point_numbers_train(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.arange(2).repeat(20).to(dtype)

    class Table(nn.Embedding):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.long())

    model = Table(2, 2)
    fit(model, (x, x.long()), (x, x.long()), epochs=50, lr=0.1, likelihood=Categorical(2))
    assert predict(model, x[:2], 1, likelihood=Categorical(2)).mean.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_validation_score_that_is_not_finite_is_an_error(tmp_path: Path, score: float) -> None:
    """Comparisons with NaN are false: the first epoch would stay the best."""
    file = tmp_path / "run.safetensors"

    class Odd(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (0.0 if self.training else score)

    def objective(model: Odd, x: Tensor, y: Tensor) -> Tensor:
        return (model(x) - y).squeeze(1) - model.weight.square().sum()

    model = Odd(3, 1)
    with pytest.raises(FloatingPointError, match=f"the validation score became {score} in epoch 1"):
        fit(model, TRAIN, VALIDATION, epochs=3, objective=objective, checkpoint=file)
    assert not file.exists()
    if math.isnan(score):
        with pytest.raises(FloatingPointError, match="the validation score became nan in epoch 1"):
            fit(model, TRAIN, VALIDATION, epochs=3, likelihood=Normal(1))


def test_validation_goes_by_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The score is that of all rows at once, with a mask and without."""
    torch.manual_seed(0)
    x = torch.randn(2500, 3)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(2500, 1)
    convolutional = to_bayesian(
        nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(4, 1))
    )
    seen: list[int] = []

    def counted(model: nn.Module, x: Tensor, *args: Any, **options: Any) -> Any:
        seen.append(len(x))
        return predict(model, x, *args, **options)

    monkeypatch.setattr(loop, "predict", counted)
    for model in (network(), convolutional):
        for mask in ((), (torch.rand(2500, 1) < 0.7,)):
            scores = []
            for most, blocks in ((1024, [1024, 1024, 452]), (5000, [2500])):
                monkeypatch.setattr(loop, "_SCORED", most)
                seen.clear()
                start = copy.deepcopy(model)
                held_out = (x, y, *mask)
                found = fit(start, (x[:50], y[:50]), held_out, epochs=2, likelihood=Normal(1))
                scores.append(found.validation_log_likelihood)
                assert seen == 2 * blocks
            assert scores[0] == pytest.approx(scores[1], rel=1e-6)


# --- devices and bad input ------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_and_resume_on_cuda(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    straight, halves = network(), network()
    fit(straight, TRAIN, VALIDATION, epochs=6, device="cuda", **SETTING)
    fit(halves, TRAIN, VALIDATION, epochs=3, device="cuda", checkpoint=file, **SETTING)
    halves = network(seed=7)
    fit(halves, TRAIN, VALIDATION, epochs=6, device="cuda", checkpoint=file, resume=True, **SETTING)
    assert next(halves.parameters()).device.type == "cuda"
    assert_same(straight, halves)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"model": "mlp"}, TypeError, "model: expected a torch.nn.Module, got 'mlp'"),
        ({"model": nn.ReLU()}, TypeError, "likelihood: expected a .*got None"),
        ({"train": X}, TypeError, r"train: expected a pair \(x, y\)"),
        ({"train": (X, [1.0])}, TypeError, "train y: expected a tensor, got a list"),
        ({"train": (X, Y[:5])}, ValueError, "train: expected a pair .*same number of rows"),
        ({"train": (X[:0], Y[:0])}, ValueError, "train: expected .*at least one"),
        ({"validation": (X, Y, Y, Y)}, TypeError, "validation: expected a pair"),
        ({"train": (X, Y, Y)}, TypeError, "mask: expected a bool tensor"),
        ({"epochs": 0}, ValueError, "epochs: .*at least 1, got 0"),
        ({"epochs": 1.0}, TypeError, "epochs: expected an integer"),
        ({"batch_size": -1}, ValueError, "batch_size: .*got -1"),
        ({"lr": 0.0}, ValueError, "lr: expected a finite number above 0, got 0.0"),
        ({"beta": -1.0}, ValueError, "beta: .*at least 0, got -1.0"),
        ({"seed": -1}, ValueError, "seed: .*got -1"),
        (
            {"seed": 2**70},
            ValueError,
            r"seed: expected an integer below 2\^64, got 1180591620717411",
        ),
        ({"seed": True}, TypeError, "seed: expected an integer .*got True"),
        ({"lr": 10**400}, ValueError, "lr: expected a finite number above 0, got 1000"),
        ({"patience": 3}, ValueError, "patience: expected None without validation data"),
        ({"patience": 0, "validation": VALIDATION}, ValueError, "patience: .*at least 1"),
        ({"device": "abacus"}, ValueError, "device: expected a name such as .*'abacus'"),
        ({"device": "meta"}, ValueError, "device: expected a cpu or cuda device, got 'meta'"),
        ({"device": "cuda:99"}, ValueError, "device: expected a device that this torch .*cuda:99"),
        ({"optimizer": "lion"}, ValueError, "optimizer: expected one of 'adam', .*got 'lion'"),
        ({"optimizer": torch.optim.Adam}, TypeError, "optimizer: expected one of 'adam', .*got"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay: .*at least 0, got -0.1"),
        ({"momentum": -0.1, "optimizer": "sgd"}, ValueError, "momentum: .*at least 0, got -0.1"),
        ({"momentum": 0.9}, ValueError, "momentum: expected 0 with optimizer='adam', got 0.9"),
        ({"clip": 0.0}, ValueError, "clip: expected a finite number above 0, got 0.0"),
        ({"progress": "no"}, TypeError, "progress: expected a bool, got 'no'"),
        ({"objective": 3}, TypeError, r"objective: expected None or a function, got 3 \(int\)"),
        (
            {"objective": lambda model, x, y: model(x).mean()},
            ValueError,
            r"objective: expected a function that .* tensor \[96\], .* shape \(\) and dtype",
        ),
        (
            {"objective": lambda model, x, y: 1.0},
            TypeError,
            r"objective: expected a function that .* tensor \[96\], .*, got 1.0 \(float\)",
        ),
        (
            {"objective": lambda model, x, y: (model(x)[:, 0], 0.5)},
            TypeError,
            r"objective: expected a function that .*, got a tensor of .* and 0.5 \(float\)",
        ),
        (
            {"objective": lambda model, x, y: model(x)},
            ValueError,
            r"objective: expected a function that .*, got a tensor of shape \(96, 1\)",
        ),
        ({"clip": "norm"}, TypeError, "clip: expected a finite number above 0, got 'norm'"),
        ({"train": (X, Y.double())}, TypeError, "y: expected the dtype of output"),
        ({"train": (X, Y[:, 0])}, ValueError, r"y: expected .*\(96,\)"),
    ],
)
def test_fit_refuses(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"train": (X, Y), "epochs": 1, "batch_size": 96, **change}
    model = arguments.pop("model") if "model" in arguments else network()
    with pytest.raises(error, match=text):
        fit(model, **arguments)


def test_labels_out_of_range_are_refused() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="y: expected class indices from 0 to 1, got 0 to 5"):
        fit(model, (X[:2], torch.tensor([0, 5])), epochs=1, likelihood=Categorical(2))


def test_log() -> None:
    """It sees each epoch; what it draws does not change the run."""
    lengths: list[int] = []

    def log(history: History) -> None:
        torch.rand(7)
        lengths.append(len(history.loss))

    first, second = network(), network()
    fit(first, TRAIN, VALIDATION, epochs=3, **SETTING)
    fit(second, TRAIN, VALIDATION, epochs=3, **SETTING, log=log)
    assert lengths == [1, 2, 3]
    assert_same(first, second)
    with pytest.raises(TypeError, match="log: expected None or a function, got"):
        fit(network(), TRAIN, epochs=1, log=3)  # type: ignore[arg-type]
