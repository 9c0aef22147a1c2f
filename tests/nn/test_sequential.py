"""Chains draw the weights of their layers in one call, and compute what torch's chains compute."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import bslfast
from bslfast.functional import normal_many
from bslfast.nn import BayesLinear, Sequential, kl, one_draw, posteriors, priors, to_bayesian


def chain(**options: Any) -> Any:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Linear(3, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 2)
    )
    return to_bayesian(plain.double(), init_scale=0.3, **options)


def by_layers(model: nn.Module) -> nn.Module:
    """A copy as chains of torch, whose layers draw by themselves."""
    found = copy.deepcopy(model)
    for module in found.modules():
        if type(module) is Sequential:
            module.__class__ = nn.Sequential
    return found


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 3, dtype=torch.float64)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often kernels have drawn weights, and how often they have had gradients."""
    found = {"forward": 0, "backward": 0, "write_kl": 0}
    for name in found:
        kernel = getattr(normal_many.native, name)

        def counted(*args: Any, name: str = name, kernel: Any = kernel, **options: Any) -> Any:
            found[name] += 1
            return kernel(*args, **options)

        monkeypatch.setattr(normal_many.native, name, counted)
    monkeypatch.setattr("bslfast.nn.weight.write_kl", normal_many.native.write_kl)
    return found


def step(model: nn.Module, x: Tensor, seed: int = 1) -> list[Tensor]:
    """Outputs, divergence and gradients of a step as users write it."""
    torch.manual_seed(seed)
    y, divergence = model(x), kl(model)
    (y.square().mean() + divergence / 100).backward()
    return [y, divergence, *(p.grad for p in model.parameters() if p.grad is not None)]


def test_a_step_is_that_of_one_draw(x: Tensor) -> None:
    model = chain()
    assert type(model) is type(model[2]) is Sequential
    found = step(model, x)
    other = by_layers(model)
    other.zero_grad()
    torch.manual_seed(1)
    with one_draw(other):
        y = other(x)
    (y.square().mean() + kl(other) / 100).backward()
    expected = [y, kl(other), *(p.grad for p in other.parameters())]
    assert len(found) == len(expected) == 2 + 12
    for one, its in zip(found, expected, strict=True):
        torch.testing.assert_close(one, its, rtol=1e-13, atol=1e-13)


def test_kernels_are_called_once(x: Tensor, calls: dict[str, int]) -> None:
    model = chain()
    for _ in range(3):
        before = dict(calls)
        step(model, x)
        assert {name: calls[name] - before[name] for name in calls} == dict.fromkeys(calls, 1)
    step(by_layers(model), x)
    assert calls["forward"] > 4


def test_the_divergence_is_that_of_all_layers(x: Tensor) -> None:
    model = chain(prior_scale=0.4)
    model(x)
    torch.testing.assert_close(kl(model), sum(layer.kl() for layer in (*model[::3], model[2][0])))


def test_moments(x: Tensor) -> None:
    """A chain without activations has outputs whose variance has a closed form."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    model = to_bayesian(plain, init_scale=0.3)
    with torch.no_grad():
        y = torch.stack([model(x[:1]) for _ in range(4000)]).flatten()
        mean = plain(x[:1]).item()
        last = model[1]
        # Variances of independent units, and of a product of independent numbers.
        v = 0.09 * (x[0].square().sum() + 1)
        m = plain[0](x[0])
        variance = (last.weight_loc[0].square() * v + 0.09 * (m.square() + v)).sum() + 0.09
    assert abs(y.mean().item() - mean) < 4 * (variance / len(y)).sqrt()
    assert y.var().item() == pytest.approx(variance.item(), rel=0.12)
    assert abs((y[1:] - mean) @ (y[:-1] - mean) / len(y)) < 4 * variance / len(y) ** 0.5


class Recording(BayesLinear):
    """It keeps the samples that it is given."""

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        self.given = [*getattr(self, "given", []), options.get("drawn")]
        return super().forward(x, **options)


def test_a_layer_that_is_called_twice_draws_twice() -> None:
    layer, other = Recording(2, 2), BayesLinear(2, 2)
    pair = Sequential(layer, Sequential(other, nn.Identity()), layer)
    (pair(torch.eye(2)).sum() + kl(pair)).backward()
    assert [given is None for given in layer.given] == [False, True]
    assert all(p.grad is not None for p in pair.parameters())
    torch.testing.assert_close(kl(pair), layer.kl() + other.kl())


def test_layers_that_share_a_weight(calls: dict[str, int]) -> None:
    plain = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    plain[2].weight = plain[0].weight
    model = to_bayesian(plain)
    step(model, torch.randn(4, 3))
    assert calls["forward"] == 2
    with one_draw(model):
        assert model[0].drawn[0] is model[2].drawn[0]


def hooked(model: Any) -> None:
    model[0].register_forward_pre_hook(lambda layer, _: layer.weight_loc.data.clamp_(-0.1, 0.1))


def detached(model: Any) -> None:
    model[0].register_forward_hook(lambda *args: args[-1].detach())


def nested(model: Any) -> None:
    model[2].register_forward_hook(lambda *args: 2 * args[-1])


def local(model: Any) -> None:
    model[3].estimator = "local_reparametrization"


def prior(model: Any) -> None:
    model[3].priors["weight"] = priors.StudentT(3.0)


def log_scale(model: Any) -> None:
    model[3].posteriors["bias"] = posteriors.Normal("log_scale")


CHANGES = (hooked, detached, nested, local, prior, log_scale)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_layers_draw_by_themselves(change: Callable[[Any], None], x: Tensor) -> None:
    """The mean over many passes is that of torch's chain, and so are the gradients' places."""
    model = chain()
    change(model)
    other = by_layers(model)
    found = step(model, x)
    expected = step(other, x)
    assert [t.shape for t in found] == [t.shape for t in expected]
    with torch.no_grad():
        ours, its = (torch.stack([m(x) for _ in range(400)]) for m in (model, other))
    error = (ours.var(0) + its.var(0)).div(400).sqrt()
    assert ((ours.mean(0) - its.mean(0)).abs() < 5 * error + 1e-12).all()


def test_a_part_that_a_hook_cuts_off_has_its_own_backward(x: Tensor) -> None:
    model = chain()
    kept: list[Tensor] = []

    def cut(layer: nn.Module, inputs: Any, y: Tensor) -> Tensor:
        kept.append(y)
        return y.detach()

    model[0].register_forward_hook(cut)
    outputs = model(x)
    kept[0].sum().backward()
    outputs.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class OwnForward(BayesLinear):
    """Its forward takes no samples."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * super().forward(x)


class OwnCall(BayesLinear):
    def __call__(self, x: Tensor) -> Tensor:
        return 2 * super().__call__(x)  # type: ignore[no-any-return]


def patched(layer: BayesLinear) -> BayesLinear:
    own = layer.forward
    layer.forward = lambda x: 2 * own(x)  # type: ignore[method-assign, assignment, misc]
    return layer


@pytest.mark.parametrize("kind", [OwnForward, OwnCall, lambda *sizes: patched(BayesLinear(*sizes))])
def test_layers_that_take_no_samples_draw_by_themselves(
    kind: Callable[..., BayesLinear], calls: dict[str, int]
) -> None:
    model = Sequential(kind(3, 4), BayesLinear(4, 4), nn.Tanh(), BayesLinear(4, 2))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.fill_(-40.0 if "raw" in name else 0.1)
    torch.testing.assert_close(
        model[0](torch.ones(1, 3)), torch.full((1, 4), 0.8), rtol=1e-5, atol=1e-5
    )
    before = calls["forward"]
    (model(torch.ones(1, 3)).sum() + kl(model)).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert calls["forward"] - before == 2  # of the first, and of the other two


def test_a_chain_inside_whose_forward_is_replaced() -> None:
    model = Sequential(BayesLinear(3, 3), Sequential(BayesLinear(3, 2)), BayesLinear(2, 1))
    own = model[1].forward
    model[1].forward = lambda x: own(x)
    assert model(torch.ones(2, 3)).shape == (2, 1)


def test_hooks_of_all_modules_see_layers_that_draw_by_themselves(x: Tensor) -> None:
    model = chain()
    kept: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, y: Tensor) -> Any:
        if isinstance(module, BayesLinear):
            kept.append(y)
            return y.detach()
        return None

    handle = torch.nn.modules.module.register_module_forward_hook(cut)
    try:
        model(x)
    finally:
        handle.remove()
    for y in kept:  # one after the other
        y.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_one_draw_and_means_go_before(x: Tensor) -> None:
    model = chain()
    with one_draw(model):
        assert torch.equal(model(x), model(x))
    with bslfast.nn.at_means(model):
        means = model(x)
    torch.testing.assert_close(means, bslfast.nn.deterministic_twin(model)(x))
    with one_draw(model[3]):
        first = model[:3](x)
        assert not torch.equal(model[:3](x), first)
        assert torch.equal(model[3](x[:, :1].expand(-1, 4)), model[3](x[:, :1].expand(-1, 4)))
    assert not torch.equal(model(x), model(x))


def test_kinds() -> None:
    """What is a chain, and what was one before."""
    plain = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Sequential(nn.Linear(2, 2)))
    model: Any = to_bayesian(plain)
    assert [type(m) for m in (model, *model)] == [Sequential, nn.Sequential, Sequential]
    twin: Any = bslfast.nn.deterministic_twin(model)
    assert {type(m) for m in (twin, *twin)} == {nn.Sequential}
    assert type(plain) is type(plain[1]) is nn.Sequential
    assert isinstance(model, nn.Sequential)
    assert repr(model).startswith("Sequential(\n")
    assert type(model[:2]) is Sequential
    assert type(bslfast.nn.to_bayesian(nn.Linear(2, 1))) is BayesLinear


def test_copies_and_files(x: Tensor) -> None:
    model = chain()
    model(x)  # what is known of a pass is not kept
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    expected = step(copy.deepcopy(model), x)
    for again in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert type(again) is Sequential
        for one, its in zip(step(again, x), expected, strict=True):
            assert torch.equal(one, its)
    other = chain()
    other.load_state_dict(model.state_dict())
    assert list(model.state_dict()) == list(by_layers(model).state_dict())


def test_compiled(x: Tensor) -> None:
    model = chain()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert compiled(x).shape == (6, 2)
    (compiled(x).sum() + kl(model)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_vmap_and_lent_parameters(x: Tensor) -> None:
    model = chain()
    model(x)
    lent = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    lent = {name: p - 30 if "raw" in name else p for name, p in lent.items()}
    assert torch.func.functional_call(model, lent, (x,)).abs().max() < 1e-6
    found = torch.func.vmap(model, randomness="same")(x)
    assert found.shape == (6, 2)
    assert bslfast.nn.sample_outputs(model, x, n_samples=3).shape == (3, 6, 2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool, x: Tensor) -> None:
    """A pass that runs again draws the same weights: of the chain, and of a part of it."""
    model = chain()
    x.requires_grad_()
    expected = step(model, x)
    model.zero_grad()
    torch.manual_seed(1)
    y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
    (y.square().mean() + bslfast.nn.kl(model) / 100).backward()
    found = [y, *(p.grad for p in model.parameters())]
    for one, its in zip(found, [expected[0], *expected[2:]], strict=True):
        torch.testing.assert_close(one, its, rtol=1e-12, atol=1e-12)

    class Part(nn.Module):
        def __init__(self, inside: nn.Module) -> None:
            super().__init__()
            self.inside = inside

        def forward(self, h: Tensor) -> Tensor:
            found: Tensor = torch.utils.checkpoint.checkpoint(
                self.inside, h, use_reentrant=reentrant
            )
            return found

    kept: list[Tensor] = []
    inner = Sequential(BayesLinear(3, 4), nn.Identity(), BayesLinear(4, 2)).double()
    inner[1].register_forward_hook(lambda *args: kept.append(args[-1]))
    outer = Sequential(BayesLinear(3, 3), BayesLinear(3, 3), Part(inner)).double()
    outer(x).sum().backward()
    assert len(kept) == 2
    torch.testing.assert_close(kept[0], kept[1])


def test_threads(x: Tensor) -> None:
    model = chain()

    def work(seed: int) -> Tensor:
        # The generator is shared, so that draws depend on the order; graphs do not.
        outputs = [model(x) for _ in range(20)]
        grads = [torch.autograd.grad(y.sum(), model[0].weight_loc)[0] for y in outputs]
        return torch.stack(grads)

    with ThreadPoolExecutor(4) as pool:
        found = torch.cat([*pool.map(work, range(4))])
    assert len(found.flatten(1).unique(dim=0)) == len(found)


def test_devices_whose_kernels_are_not_called_directly(
    monkeypatch: pytest.MonkeyPatch, x: Tensor, calls: dict[str, int]
) -> None:
    """As on CUDA devices: one call by the op, the same numbers."""
    model = chain()
    expected = step(model, x)
    model.zero_grad()
    weight_sample = "bslfast.nn.estimators.weight_sample"
    monkeypatch.setattr(f"{weight_sample}.draw_checked", lambda *_: None)
    calls.update(dict.fromkeys(calls, 0))
    assert model._draw() == {}
    model[0]._together.launches = True
    found = step(model, x)
    assert calls == dict.fromkeys(calls, 1)
    for one, its in zip(found, expected, strict=True):
        assert torch.equal(one, its)


def test_large_chains_draw_by_layers(
    monkeypatch: pytest.MonkeyPatch, calls: dict[str, int]
) -> None:
    model = chain()
    monkeypatch.setattr("bslfast.nn.estimators.weight_sample.MOST_DRAWN_TOGETHER", 30)
    step(model, torch.randn(6, 3, dtype=torch.float64))
    assert calls["write_kl"] == 3


@pytest.mark.parametrize("most", [30, 1000])
def test_training_at_once_is_that_by_ops(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program draws the weights of a chain as its passes do."""
    monkeypatch.setattr("bslfast.nn.estimators.weight_sample.MOST_DRAWN_TOGETHER", most)
    data = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    found = []
    for at_once in (True, False):
        model, likelihood = chain(), bslfast.likelihoods.Normal(2).double()
        with bslfast.whole_networks(at_once):
            history = bslfast.training.fit(
                model, data, epochs=2, batch_size=8, likelihood=likelihood
            )
        found.append((history.loss, [p.detach() for p in model.parameters()]))
        assert all(p.grad is None for p in model.parameters()) == at_once
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    for one, its in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, its, rtol=1e-10, atol=1e-12)
