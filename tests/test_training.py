"""The training loop: results, early stopping, checkpoints, resume, interruption."""

from __future__ import annotations

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

from bslfast import _files
from bslfast.bnn import BayesianMLP
from bslfast.likelihoods import Categorical, Normal
from bslfast.predict import predict
from bslfast.training import History, checkpoint, fit, loop

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
    """Overfits on purpose: few noisy examples, no KL, many weights."""
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
        ({"model": lambda: network(hidden=(9,))}, "the (model|table of weights) is .* there and"),
        (
            {"train": (X[:63], Y[:63])},
            r"the shape of the training data is \[\[64, 3\], \[64, 1\]\]",
        ),
        ({"train": (X[:64] + 1, Y[:64])}, "the checksum of the training data is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    file = tmp_path / "run.safetensors"
    fit(network(), TRAIN, epochs=1, checkpoint=file, **SETTING)
    before = file.read_bytes()
    arguments = {"train": TRAIN, **SETTING, **change}
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
        ({"validation": (X, Y, Y)}, TypeError, "validation: expected a pair"),
        ({"epochs": 0}, ValueError, "epochs: .*at least 1, got 0"),
        ({"epochs": 1.0}, TypeError, "epochs: expected an integer"),
        ({"batch_size": -1}, ValueError, "batch_size: .*got -1"),
        ({"lr": 0.0}, ValueError, "lr: expected a finite number above 0, got 0.0"),
        ({"beta": -1.0}, ValueError, "beta: .*at least 0, got -1.0"),
        ({"seed": -1}, ValueError, "seed: .*got -1"),
        ({"patience": 3}, ValueError, "patience: expected None without validation data"),
        ({"patience": 0, "validation": VALIDATION}, ValueError, "patience: .*at least 1"),
        ({"device": "abacus"}, ValueError, "device: expected a name such as .*'abacus'"),
        ({"device": "meta"}, ValueError, "device: expected a cpu or cuda device, got 'meta'"),
        ({"device": "cuda:99"}, ValueError, "device: expected a device that this torch .*cuda:99"),
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
