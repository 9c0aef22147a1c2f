"""Epochs of variational autoencoders as one call: what training by ops does, up to rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trained_both_ways import assert_same_training

import bslfast
from bslfast import likelihoods
from bslfast.cli.plain import plain
from bslfast.nn import BayesLinear, to_bayesian
from bslfast.training import History, fit, schedules
from bslfast.vae import (
    VAE,
    SemiSupervisedVAE,
    VampPrior,
    conv_decoder,
    conv_encoder,
    mlp_decoder,
    mlp_encoder,
)

SHAPE = (2, 3)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(130, *SHAPE, generator=GENERATOR, dtype=torch.float64)
COUNTS = X.mul(5).round()
# 100 = 48 + 48 + 4: batches of more than one tile, the last with fewer rows than a tile.
SETTING: dict[str, Any] = {
    "batch_size": 48, "lr": 0.01, "seed": 3, "epochs": 3, "objective": VAE.elbo_and_kl
}  # fmt: skip


def mlp(latent: int = 2, parts: int = 1, **options: Any) -> VAE:
    """A VAE whose decoder gives so many outputs for each number of x."""
    torch.manual_seed(0)
    decoder = mlp_decoder(latent, (parts * SHAPE[0], *SHAPE[1:]), (7, 33))
    return VAE(mlp_encoder(SHAPE, latent, (9,)), decoder, **options).double()


def assert_same(model: VAE, x: Tensor = X, **setting: Any) -> None:
    once, by_ops = assert_same_training(model, (x[:100],), (x[100:],), **SETTING | setting)
    assert once.latent == by_ops.latent is not None


LIKELIHOODS: dict[str, tuple[Callable[[], VAE], Tensor]] = {
    "bernoulli": (mlp, X),
    "normal": (lambda: mlp(likelihood="normal"), X),
    "normal, fixed": (lambda: mlp(likelihood="normal", scale=0.3), X),
    "normal, decoder": (lambda: mlp(parts=2, likelihood="normal", scale="decoder"), X),
    "normal, softplus": (lambda: mlp(likelihood=likelihoods.Normal(None)), X),
    "laplace": (lambda: mlp(likelihood=likelihoods.Laplace(None)), X),
    "laplace, fixed": (lambda: mlp(likelihood="laplace", scale=0.5), X),
    "student_t": (lambda: mlp(likelihood=likelihoods.StudentT(None, learn_df=True)), X),
    "student_t, decoder": (
        lambda: mlp(parts=2, likelihood=likelihoods.StudentT(None, scale="outputs")), X
    ),
    "poisson": (lambda: mlp(likelihood="poisson"), COUNTS),
}  # fmt: skip


@pytest.mark.parametrize(("model", "x"), LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_each_likelihood(model: Callable[[], VAE], x: Tensor, calls: list[int]) -> None:
    assert_same(model(), x)
    assert sum(calls) == 9


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1 dimension, clip": ({"latent": 1}, {"clip": 0.5}),
    "5 dimensions, adamw": ({"latent": 5}, {"optimizer": "adamw", "weight_decay": 0.3}),
    "beta, sgd": ({"beta": 2.5}, {"optimizer": "sgd", "momentum": 0.8, "lr": 1e-3}),
    "beta 0, rmsprop": ({"beta": 0.0}, {"optimizer": "rmsprop", "schedule": "cosine"}),
    "one step": ({"latent": 3}, {"batch_size": 1000}),
    "a row a step": ({}, {"batch_size": 1, "epochs": 1}),
}


@pytest.mark.parametrize(("options", "setting"), CHANGES.values(), ids=CHANGES)
def test_each_setting(options: dict[str, Any], setting: dict[str, Any], calls: list[int]) -> None:
    assert_same(mlp(**options), **setting)
    assert calls


def test_rows_of_numbers(calls: list[int]) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    likelihood = likelihoods.Normal(6, scale="learned")
    assert_same(VAE(encoder, nn.Linear(2, 6), likelihood=likelihood).double(), X.flatten(1))
    assert calls


def test_frozen_parameters_stay(calls: list[int]) -> None:
    model = mlp(likelihood="normal")
    for parameter in (model.likelihood.raw_scale, model.encoder[1].weight):
        parameter.requires_grad_(False)
    assert_same(model, clip=0.1)
    assert calls


def test_the_divergence_is_its_average_over_the_epoch(calls: list[int]) -> None:
    model = mlp(beta=0.5)
    before = copy.deepcopy(model)
    history = fit(model, (X,), **(SETTING | {"epochs": 1, "lr": 1e-300}))
    with torch.no_grad():
        kl = before.terms(X)[1].mean().item()
    assert calls
    assert history.kl == pytest.approx([kl], rel=1e-12)


def test_float32(calls: list[int]) -> None:
    history = fit(
        mlp().float(), (X.float(),), epochs=60, batch_size=32, lr=0.02, objective=VAE.elbo_and_kl
    )
    assert calls
    assert history.loss[-1] < history.loss[0] - 0.1


class _Own(VAE):
    def terms(self, *args: Any, **options: Any) -> Any:
        return super().terms(*args, **options)


def _with_a_method() -> VAE:
    model = mlp()
    model.terms = model.terms  # type: ignore[method-assign]
    return model


def _with_a_hook() -> VAE:
    model = mlp()
    model.decoder[0].register_forward_hook(lambda *_: None)
    return model


OTHERS: dict[str, Callable[[], VAE]] = {
    "free bits": lambda: mlp(free_bits=0.1),
    "a prior": lambda: mlp(prior=VampPrior(3, SHAPE).double()),
    "a subclass": lambda: _Own(mlp().encoder, mlp().decoder),
    "plain torch": lambda: plain(mlp()),  # type: ignore[arg-type, return-value]
    "a method": _with_a_method,
    "a hook": _with_a_hook,
    "a likelihood": lambda: mlp(likelihood="continuous_bernoulli"),
    "a Bayesian layer": lambda: VAE(
        nn.Sequential(nn.Flatten(), BayesLinear(6, 4)), mlp().decoder
    ).double(),
    "another layer": lambda: VAE(
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Dropout(0.1)), mlp().decoder
    ).double(),
    "another flattening": lambda: VAE(
        nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 6)), nn.Linear(6, 4)), mlp().decoder
    ).double(),
}  # fmt: skip


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_what_has_no_steps_goes_by_ops(model: Callable[[], VAE], calls: list[int]) -> None:
    history = fit(model(), (X,), **SETTING)
    assert not calls
    assert history.steps == 9


def test_other_objectives_go_by_ops(calls: list[int]) -> None:
    fit(mlp(), (X,), **(SETTING | {"objective": VAE.elbo}))
    assert not calls


def test_convolutions_go_by_ops(calls: list[int]) -> None:
    x = torch.rand(8, 1, 4, 4, generator=GENERATOR)
    model = VAE(conv_encoder((1, 4, 4), 2, (2,), (1,)), conv_decoder(2, (1, 4, 4), (2,), (1,)))
    fit(model, (x,), **SETTING)
    assert not calls


def _changed(attribute: str, value: Any) -> Callable[[VAE], None]:
    return lambda model: setattr(model, attribute, value)


LATER: dict[str, Callable[[VAE], None]] = {
    "free bits": _changed("free_bits", 0.1),
    "beta": _changed("beta", 3.0),
    "a prior": _changed("prior", VampPrior(3, SHAPE).double()),
    "an encoder": _changed("encoder", mlp_encoder(SHAPE, 2, (5,)).double()),
}


@pytest.mark.parametrize("change", LATER.values(), ids=LATER)
def test_what_changes_during_training_counts(
    change: Callable[[VAE], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes after the first epoch, when the validation examples are scored."""

    def trained(on: bool) -> History:
        model, check = mlp(), VAE._check_x

        def check_x(vae: VAE, x: Tensor, context: Tensor | None = None) -> Tensor:
            if len(x) == 30:
                change(vae)
            return check(vae, x)

        with monkeypatch.context() as patch, bslfast.whole_networks(on):
            patch.setattr(VAE, "_check_x", check_x)
            return fit(model, (X[:100],), (X[100:],), **SETTING)

    assert trained(True).loss == pytest.approx(trained(False).loss, rel=1e-8)


REFUSED: dict[str, tuple[Callable[[], VAE], Callable[[], tuple[Tensor, ...]], str]] = {
    "values": (mlp, lambda: (X * 3,), "x: expected values in"),
    "counts": (lambda: mlp(likelihood="poisson"), lambda: (X - 1,), "x: expected values"),
    "a mask": (mlp, lambda: (X, X > 0.5), "context: expected a floating"),
    "a context": (mlp, lambda: (X, X), "context: expected None, as the encoder"),
    "a dimension": (mlp, lambda: (X[:, 0, 0],), "x: expected shape"),
    "integers": (mlp, lambda: (COUNTS.long(),), "x: expected"),
    "a likelihood of another width": (
        lambda: mlp(likelihood=likelihoods.Bernoulli(6)), lambda: (X,), "x: expected shape"
    ),
    "another shape of the decoder": (
        lambda: VAE(mlp().encoder, mlp_decoder(2, SHAPE[::-1]).double()), lambda: (X,),
        "decoder: expected outputs of shape",
    ),
    "an odd encoder": (
        lambda: VAE(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), mlp().decoder).double(),
        lambda: (X,), "an even number",
    ),
    "another latent": (lambda: VAE(mlp().encoder, mlp().decoder, latent=3), lambda: (X,), "3 lat"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "data", "match"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("on", [True, False])
def test_refuses(
    on: bool, model: Callable[[], VAE], data: Callable[[], tuple[Tensor, ...]], match: str
) -> None:
    with bslfast.whole_networks(on), pytest.raises((TypeError, ValueError), match=match):
        fit(model(), data(), **SETTING)


def test_resumed_training_is_the_same(tmp_path: Path, calls: list[int]) -> None:
    whole, parts, again = mlp(), mlp(), mlp()
    for model in (whole, parts, again):
        model.latent = 2  # as checkpoints compare it
    fit(whole, (X,), **(SETTING | {"epochs": 4}))
    fit(parts, (X,), **(SETTING | {"epochs": 2}), checkpoint=tmp_path / "half")
    fit(again, (X,), **(SETTING | {"epochs": 4}), checkpoint=tmp_path / "half", resume=True)
    for first, second in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    assert calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_threads(dtype: torch.dtype, calls: list[int]) -> None:
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model = mlp().to(dtype)
        history = fit(model, (X.to(dtype),), **(SETTING | {"batch_size": 100}))
        found.append(([p.detach() for p in model.parameters()], history.loss, history.kl))
    torch.set_num_threads(before)
    assert calls
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1:] == found[1][1:]


class _Recorded(VAE):
    """What beta and capacity were in each call, in training or not."""

    def elbo_and_kl(self, *args: Any, **settings: Any) -> tuple[Tensor, Tensor]:
        seen.append((self.training, self.beta, self.capacity))
        return super().elbo_and_kl(*args, **settings)


seen: list[tuple[bool, float, float | None]] = []


def test_attributes_follow_their_courses() -> None:
    """Both by step; validation sees what they are in the end, and so does who uses the model."""
    seen.clear()
    torch.manual_seed(0)
    model = _Recorded(mlp_encoder(SHAPE, 2, (5,)), mlp_decoder(2, SHAPE, (5,)), latent=2).double()
    courses = {"beta": schedules.LinearWarmup(2), "capacity": schedules.LinearWarmup(1, 4.0)}
    setting: dict[str, Any] = {"epochs": 2, "batch_size": 48, "courses": courses}
    fit(model, (X[:96],), (X[96:],), objective=_Recorded.elbo_and_kl, **setting)
    steps = [(True, 0.0, 0.0), (True, 0.25, 2.0), (True, 0.5, 4.0), (True, 0.75, 4.0)]
    end = (1.0, 4.0)
    assert seen == [*steps[:2], (False, *end), *steps[2:], (False, *end)]
    assert (model.beta, model.capacity) == end


def test_a_course_changes_the_weights_and_can_be_resumed(tmp_path: Path) -> None:
    def trained(model: VAE, **changed: Any) -> VAE:
        fit(model, (X,), **(SETTING | changed))
        return model

    course: dict[str, Any] = {"courses": {"beta": schedules.LinearWarmup(3, 2.0)}}
    whole, other = trained(mlp(), **course), trained(mlp(), **{"courses": None})
    file: dict[str, Any] = {"checkpoint": tmp_path / "c.safetensors"}
    trained(mlp(), **(course | file | {"epochs": 2}))
    parts = trained(mlp(), **(course | file | {"resume": True}))
    for a, b, c in zip(whole.parameters(), parts.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    with pytest.raises(ValueError, match="courses"):
        trained(mlp(), **(file | {"resume": True}))


@pytest.mark.parametrize(
    ("courses", "error", "message"),
    [
        ([schedules.Cyclic(2)], TypeError, "courses: expected a mapping"),
        ({"beta": 0.5}, TypeError, r"courses: expected a bslfast.* for 'beta', got 0\.5"),
        ({"gamma": schedules.Cyclic(2)}, ValueError, "courses: .* a VAE .*, got 'gamma'"),
        ({"encoder": schedules.Cyclic(2)}, ValueError, "courses: .* a VAE .*, got 'encoder'"),
        ({"vae.beta": schedules.Cyclic(2)}, ValueError, "courses: .* got 'vae.beta'"),
        ({"encoder.bias": schedules.Cyclic(2)}, ValueError, "courses: .* got 'encoder.bias'"),
        ({"posterior._buffers": schedules.Cyclic(2)}, ValueError, "courses: .* got 'posterior._"),
        ({3: schedules.Cyclic(2)}, ValueError, "courses: .* got 3"),
    ],
)
def test_courses_that_are_refused(courses: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit(mlp(), (X,), **(SETTING | {"courses": courses}))


class _RecordedVAE(VAE):
    def elbo(self, *args: Any, **settings: Any) -> Tensor:
        seen.append((self.training, self.beta, self.capacity))
        return super().elbo(*args, **settings)


def test_courses_of_the_vae_in_a_semi_supervised_one() -> None:
    seen.clear()
    vae = _RecordedVAE(
        mlp_encoder(SHAPE, 2, (5,), context=3), mlp_decoder(2, SHAPE, (5,), context=3), latent=2
    )
    model = SemiSupervisedVAE(
        vae, mlp_encoder(SHAPE, 2, (5,), outputs=3), classes=3, labelled=1.0
    ).double()
    courses = {
        "vae.beta": schedules.LinearWarmup(2),
        "vae.capacity": schedules.LinearWarmup(1, 4.0),
        "alpha": schedules.LinearWarmup(2, 0.5),
    }
    fit(
        model, (X[:96], torch.arange(96) % 3), epochs=2, batch_size=48, courses=courses,
        objective=SemiSupervisedVAE.objective,
    )  # fmt: skip
    assert seen == [(True, 0.0, 0.0), (True, 0.25, 2.0), (True, 0.5, 4.0), (True, 0.75, 4.0)]
    assert (vae.beta, vae.capacity, model.alpha) == (1.0, 4.0, 0.5)


@pytest.mark.parametrize("beta", [0.5, 0.0, schedules.LinearWarmup(2)])
def test_a_beta_that_nothing_is_weighted_by(beta: Any) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=r"^beta: expected 1 with an objective.*courses=.*, got"):
        fit(model, (X,), **(SETTING | {"beta": beta}))
    fit(model, (X,), **(SETTING | {"beta": 1, "epochs": 1}))


def test_beta_weighs_bayesian_layers_beside_an_objective() -> None:
    """Weights are drawn with another divergence, which is no part of the objective."""
    found = []
    for beta in (0.0, 100.0):
        torch.manual_seed(0)
        encoder, decoder = mlp_encoder(SHAPE, 2, (5,)), mlp_decoder(2, SHAPE, (5,))
        model = VAE(to_bayesian(encoder), decoder).double()
        fit(model, (X,), **(SETTING | {"beta": beta}))
        found.append(next(model.encoder.parameters()).detach())
    assert not torch.equal(*found)
