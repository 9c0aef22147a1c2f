"""No layer, model, flow, VAE or distribution draws twice from one stream of one seed."""

from __future__ import annotations

import ast
import ctypes
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bslfast
import bslfast.functional as BF
from bslfast import distributions
from bslfast._native import _cpu
from bslfast._native import noise as native_noise
from bslfast.vae import VAE, SemiSupervisedVAE, VampPrior, mlp_decoder, mlp_encoder

SEED = 5
Draws = list[tuple[int, int]]


def _drawing_kernels() -> Iterator[tuple[str, list[str], bool]]:
    """Kernels with a seed among their arguments, by the stub; backward draws again on purpose.

    (the name, the arguments, whether the first ones come as a tuple)
    """
    stub = (Path(inspect.getfile(bslfast)).parent / "_native" / "_cpu.pyi").read_text()
    members = {
        name: re.findall(r"\w+", text)
        for text, name in re.findall(r"((?:#: .*\n)+)(_\w+) = tuple\[", stub)
    }
    assert members
    for node in ast.parse(stub).body:
        ends = ("_backward", "_gradients", "_kl")
        if isinstance(node, ast.FunctionDef) and not node.name.endswith(ends):
            names = [a.arg for a in node.args.args]
            packed = names[:1] == ["call"]
            if packed:
                names = [*members[ast.unparse(node.args.args[0].annotation)], *names[1:]]
            if "seed" in names or node.name == "pointwise_results":
                yield node.name, names, packed


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """The (seed, stream) of all later draws by kernels."""
    found: Draws = []

    def recording(kernel: Callable[..., Any], names: list[str], packed: bool) -> Callable[..., Any]:
        by_value = kernel.__name__.startswith("noise_")

        def record_of_tensors(*args: Any) -> Any:
            flat = (*args[0], *args[1:]) if packed else args
            given = dict(zip(names, flat, strict=True))
            seed = given.get("seed", given["tensors"][-1])
            results = kernel(*args)
            # Else another kernel draws, or none.
            if results is not None and seed.dtype == torch.int64:
                n = len(given["tensors"]) // 2 if "seed" in given else 1
                found.extend((seed.item(), given["stream"] + i) for i in range(n))
            return results

        def record(*args: Any) -> Any:
            flat = (*args[0], *args[1:]) if packed else args
            given = dict(zip(names, flat, strict=True))
            if by_value or given["seed"]:  # no address: nothing is drawn
                seed = given["seed"]
                if not by_value:
                    seed = ctypes.c_int64.from_address(seed).value
                tensors = len(given["sizes"]) if "raw_scale" in given and "sizes" in given else 1
                found.extend((seed, given["stream"] + i) for i in range(tensors))
            return kernel(*args)

        return record_of_tensors if "tensors" in names else record

    def recording_program(name: str, place: int) -> None:
        method = getattr(_cpu.Program, name)

        def record(*args: Any) -> Any:
            seeds, streams = args[place]
            found.extend(zip(seeds, itertools.cycle(streams)))
            return method(*args)

        monkeypatch.setattr(_cpu.Program, name, record)

    for name, place in (("forward", 6), ("loss", 4), ("train", -2)):
        recording_program(name, place)
    for name, names, packed in _drawing_kernels():
        patched = recording(getattr(_cpu, name), names, packed)
        monkeypatch.setattr(_cpu, name, patched)
        if name.removeprefix("noise_") in native_noise._FILL:
            monkeypatch.setitem(native_noise._FILL, name.removeprefix("noise_"), patched)
    return found


def assert_own_streams(draws: Draws, at_least: int = 1) -> None:
    assert len(draws) >= at_least, f"{len(draws)} draws were seen"
    assert len(set(draws)) == len(draws), sorted(draws)


def test_two_ops_share_the_noise_of_one_stream(draws: Draws) -> None:
    """This is documented. It also shows that the tests below would see a shared stream."""
    loc, scale = torch.zeros(1000), torch.zeros(1000)
    laplace = BF.laplace_rsample(loc, scale, seed=SEED)
    logistic = BF.logistic_rsample(loc, scale, seed=SEED)
    assert torch.equal(laplace.argsort(), logistic.argsort())
    BF.normal_rsample(loc, scale, seed=SEED)
    BF.normal_rsample_kl_many([loc, loc], [scale, scale], seed=SEED)
    BF.standard_normal((3,), seed=SEED)
    BF.gumbel_softmax_rsample(loc, 1.0, seed=SEED)
    assert draws == [(SEED, 0)] * 4 + [(SEED, 1)] + [(SEED, 0)] * 2
    with pytest.raises(AssertionError):
        assert_own_streams(draws)
    draws.clear()
    other = BF.logistic_rsample(loc, scale, seed=SEED, stream=1)
    rank = torch.corrcoef(torch.stack([t.argsort().argsort().double() for t in (laplace, other)]))
    assert abs(rank[0, 1]) < 0.15
    assert_own_streams(draws)


def _bnn(draws: Draws) -> None:
    model, x = bslfast.bnn.BayesianMLP(3, (4, 5), 2), torch.randn(7, 3)
    model.layers[1].double()  # another dtype: two calls for one draw of all layers
    layer = bslfast.nn.BayesLinear(3, 4)
    estimated = bslfast.nn.BayesLinear(3, 4, prior=bslfast.nn.priors.Horseshoe())
    convolution = bslfast.nn.BayesConv1d(3, 4, 1)
    flipped = bslfast.nn.BayesConv1d(3, 4, 1, estimator="flipout")
    joint = bslfast.nn.BayesLinear(3, 4, posterior=bslfast.nn.posteriors.LowRank(2))
    full = bslfast.nn.BayesLinear(3, 4, posterior=bslfast.nn.posteriors.FullCovariance())
    dropout = bslfast.nn.BayesLinear(3, 4, posterior=bslfast.nn.posteriors.MCDropout())
    for call, n in (
        (lambda: layer(x, seed=SEED), 2),
        (lambda: bslfast.nn.estimators.draw(list(model.layers), SEED), 6),
        (lambda: layer.sample_outputs(x, 3), 2),
        (lambda: bslfast.nn.estimators.draw([layer, estimated], SEED), 4),
        (lambda: estimated(x, seed=SEED), 2),
        (lambda: convolution(x.unsqueeze(-1), seed=SEED), 2),
        (lambda: flipped(x.unsqueeze(-1), seed=SEED), 4),
        (lambda: bslfast.nn.estimators.draw([joint, full, layer, dropout], SEED), 5),
    ):
        draws.clear()
        call()
        assert_own_streams(draws, n)


def _predictions(draws: Draws) -> None:
    model, x = bslfast.bnn.BayesianMLP(3, (4, 5), 1), torch.randn(7, 3)
    bslfast.predict(model, x, n_samples=4, seed=SEED)
    assert_own_streams(draws, 6)
    draws.clear()
    bslfast.training.fit(model, (x, x[:, :1]), epochs=2, batch_size=4, seed=SEED, progress=False)
    assert_own_streams(draws, 2 * 2 * 6)


def _fits(draws: Draws) -> None:
    """With validation, whose noise is its own, also where no shuffling comes before training's."""
    for rows in (1, 7):
        x = torch.rand(rows, 4).round()
        bayesian = bslfast.bnn.BayesianMLP(4, (4,), 1)
        vae = VAE(mlp_encoder((4,), 2), mlp_decoder(2, (4,)), latent=2)
        for model, data, options in (
            (bayesian, (x, x[:, :1]), {}),
            (vae, (x,), {"objective": lambda vae, x: vae.elbo(x)}),
        ):
            draws.clear()
            bslfast.training.fit(
                model, data, data, epochs=1, batch_size=4, seed=SEED, progress=False, **options
            )
            assert_own_streams(draws, 2)


def _vae(draws: Draws) -> None:
    x = torch.rand(6, 4).round()
    for prior in (None, VampPrior(3, (4,))):
        vae = VAE(mlp_encoder((4,), 2), mlp_decoder(2, (4,)), latent=2, prior=prior)
        for call in (
            lambda vae=vae: vae.elbo(x, 3, seed=SEED),
            lambda vae=vae: vae.iwae(x, 3, seed=SEED),
            lambda vae=vae: vae.log_marginal(x, 5, seed=SEED, max_bytes=2 * x.nbytes),
            lambda vae=vae: vae.sample(4, seed=SEED),
        ):
            draws.clear()
            call()
            assert_own_streams(draws)


def _semi_supervised(draws: Draws) -> None:
    x, y = torch.rand(6, 4).round(), torch.tensor([-1, 0, 1, 2, -1, -1])
    vae = VAE(mlp_encoder((4,), 2, context=3), mlp_decoder(2, (4,), context=3), latent=2)
    model = SemiSupervisedVAE(vae, torch.nn.Linear(4, 3), classes=3, labelled=0.5)
    for call in (
        lambda: model.objective(x, y, 3, seed=SEED),
        lambda: model.log_marginal(x, 5, seed=SEED, max_bytes=2 * x.nbytes),
        lambda: model.sample(4, seed=SEED),
    ):
        draws.clear()
        call()
        assert_own_streams(draws)


def _flows(draws: Draws) -> None:
    for make in (bslfast.flows.RealNVP, bslfast.flows.NSF, bslfast.flows.MAF):
        flow = make(3)
        for call in (
            lambda flow=flow: flow.sample(5, seed=SEED),
            lambda flow=flow: flow.rsample_and_log_prob(5, seed=SEED),
            lambda flow=flow: flow.distribution().rsample((2,), seed=SEED),
        ):
            draws.clear()
            call()
            assert_own_streams(draws)


@pytest.mark.parametrize("models", [_bnn, _predictions, _fits, _vae, _semi_supervised, _flows])
def test_models(
    models: Callable[[Draws], None], draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seed serves all draws of a call, if the call takes a seed."""
    monkeypatch.setattr(bslfast.bnn, "_HELD_WEIGHTS", 40)
    models(draws)


def _made() -> dict[str, Any]:
    number, matrix = torch.ones(3), torch.eye(3)
    d = distributions
    return {
        "Bernoulli": d.Bernoulli(number),
        "Categorical": d.Categorical(number),
        "Gumbel": d.Gumbel(number, number),
        "HalfCauchy": d.HalfCauchy(number),
        "Laplace": d.Laplace(number, number),
        "LogNormal": d.LogNormal(number, number),
        "Logistic": d.Logistic(number, number),
        "LowRankMultivariateNormal": d.LowRankMultivariateNormal(number, matrix[:, :2], number),
        "MultivariateNormal": d.MultivariateNormal(number, matrix),
        "NegativeBinomial": d.NegativeBinomial(number, number),
        "Normal": d.Normal(number, number),
        "OneHotCategoricalStraightThrough": d.OneHotCategoricalStraightThrough(1.0, logits=number),
        "Poisson": d.Poisson(number),
        "RelaxedBernoulli": d.RelaxedBernoulli(1.0, logits=number),
        "RelaxedOneHotCategorical": d.RelaxedOneHotCategorical(1.0, logits=number),
        "StudentT": d.StudentT(number, number, number),
    }


def test_distributions(draws: Draws) -> None:
    """Distributions draw alone and in torch's mixtures; each draw has its own seed."""
    made = _made()
    classes = {name for name in distributions.__all__ if name[0].isupper()}
    # Angles are drawn by torch's own sampler.
    assert classes - {"LocationScale", "RawScale", "VonMises"} == set(made)
    mixture = torch.distributions.MixtureSameFamily(made["Categorical"], made["Normal"])
    for name, distribution in {**made, "mixture": mixture}.items():
        draws.clear()
        distribution.sample((4,))
        if distribution.has_rsample:
            distribution.rsample((4,))
            assert len(draws) >= 2, name
        assert len(set(draws)) == len(draws), name
