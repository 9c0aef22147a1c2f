"""Bayesian layers: their results, and that their KL is never a stale one."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import bslfast
import bslfast.functional as BF
from bslfast.nn import BayesLinear, kl, one_draw, posteriors, priors
from bslfast.nn.posteriors import raw_scale_of


def exact_kl(layer: BayesLinear) -> float:
    total = 0.0
    for loc, raw, given in (
        (layer.weight_loc, layer.weight_raw_scale, layer.priors["weight"]),
        (layer.bias_loc, layer.bias_raw_scale, layer.priors["bias"]),
    ):
        scale = torch.nn.functional.softplus(raw.detach().double())
        prior = Normal(torch.tensor(given.loc).double(), given.scale)
        total += kl_divergence(Normal(loc.detach().double(), scale), prior).sum().item()
    return total


def test_layer_draws_from_its_posterior() -> None:
    torch.manual_seed(0)
    layer = BayesLinear(3, 2, init_scale=0.3, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    y = torch.stack([layer(x).detach() for _ in range(4000)])
    variance = 0.3**2 * (x.square().sum(dim=1, keepdim=True) + 1)
    mean = nn.functional.linear(x, layer.weight_loc, layer.bias_loc)
    error = (y.mean(dim=0) - mean).abs() / (variance / 4000).sqrt()
    assert error.max() < 5  # 8 comparisons at 5 sigma: a false alarm in 200,000 runs
    ratio = y.var(dim=0) / variance
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 4000)


def test_sample_outputs_share_the_posterior_and_accept_one_input_per_draw() -> None:
    torch.manual_seed(0)
    layer = BayesLinear(3, 2, init_scale=0.3)
    x = torch.randn(4, 3)
    shared = layer.sample_outputs(x, 6)
    torch.manual_seed(0)
    BayesLinear(3, 2), torch.randn(4, 3)
    again = layer.sample_outputs(x.expand(6, 4, 3), 6, per_draw=True)
    assert shared.shape == (6, 4, 2)
    torch.testing.assert_close(shared, again)
    assert not torch.allclose(shared[0], shared[1])
    torch.manual_seed(0)
    BayesLinear(3, 2), torch.randn(4, 3)
    folded = layer.sample_outputs(x.view(2, 1, 2, 3), 6)
    torch.testing.assert_close(folded, shared.view(6, 2, 1, 2, 2))
    for shape in ((4, 3), (3,), (4, 2, 3)):
        with pytest.raises(ValueError, match="x: expected one input for each of 6 draws, got"):
            layer.sample_outputs(torch.randn(shape), 6, per_draw=True)
    with pytest.raises(ValueError, match=r"x: expected shape \[..., 3\], got \[4, 2\]"):
        layer.sample_outputs(torch.randn(4, 2), 6)


@pytest.mark.parametrize("parametrization", ["softplus", "scale", "log_scale", "log_var"])
def test_initial_scale(parametrization: str) -> None:
    raw = torch.tensor(raw_scale_of(0.02, parametrization), dtype=torch.float64)
    loc = torch.zeros((), dtype=torch.float64)
    sample = BF.normal_rsample(loc, raw, parametrization=parametrization, seed=1)
    noise = BF.normal_rsample(loc, loc, parametrization="log_scale", seed=1)
    assert (sample / noise).item() == pytest.approx(0.02, rel=1e-12)


def test_kl_of_a_forward_pass_is_used_once_and_equals_the_kl_of_the_parameters() -> None:
    layer = BayesLinear(5, 4, prior_loc=0.1, prior_scale=0.5)
    layer(torch.randn(2, 5))
    assert layer._remembered is not None
    first = kl(layer)
    assert layer._remembered is None
    second = kl(layer)
    assert first is not second
    for value in (first, second):
        assert value.item() == pytest.approx(exact_kl(layer), rel=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(first, list(layer.parameters())),
        torch.autograd.grad(second, list(layer.parameters())),
    )


def _step(optimizer: type[torch.optim.Optimizer], **options: bool) -> Any:
    def change(layer: BayesLinear) -> None:
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer(layer.parameters(), lr=0.5, **options).step()  # type: ignore[call-arg]

    change.__name__ = "_".join([optimizer.__name__, *options])
    return change


_OPTIMIZERS = [
    _step(optimizer, **options)
    for optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
    for options in ({}, {"foreach": True}, {"fused": True})
]


def _load(layer: BayesLinear) -> None:
    layer.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()})


def _vector(layer: BayesLinear) -> None:
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(vector + 1, layer.parameters())


def _assign(layer: BayesLinear) -> None:
    layer.weight_loc = nn.Parameter(layer.weight_loc.detach() + 1)


def _data(layer: BayesLinear) -> None:
    layer.weight_loc.data = layer.weight_loc.data + 1


def _data_in_place(layer: BayesLinear) -> None:
    layer.weight_loc.data.add_(1)


def _memory(layer: BayesLinear) -> None:
    # A kernel outside torch would write in this way.
    layer.weight_raw_scale.detach().numpy()[0, 0] = 9.0


def _averaged(layer: BayesLinear) -> None:
    average = torch.optim.swa_utils.AveragedModel(copy.deepcopy(layer))
    for parameter in average.parameters():
        parameter.data.add_(1)
    for parameter, other in zip(layer.parameters(), average.parameters(), strict=True):
        parameter.data, other.data = other.data, parameter.data


def _prior(**numbers: float) -> Any:
    def change(layer: BayesLinear) -> None:
        for name in layer.priors:
            layer.priors[name] = priors.Normal(**numbers)

    change.__name__ = f"prior_{next(iter(numbers))}"
    return change


_SETTINGS = [_prior(scale=0.1), _prior(loc=1.0)]


def _old_style_optimizer(layer: BayesLinear) -> None:
    # Writing through .data is invisible to torch; the backward pass before it is not.
    (layer(torch.randn(3, 5)).square().sum() + layer.kl()).backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        parameter.data.add_(parameter.grad, alpha=-0.1)


CHANGES = [
    *(*_OPTIMIZERS, *_SETTINGS),
    *(_load, _vector, _assign, _data, _data_in_place, _memory, _averaged, _old_style_optimizer),
]
of_each_change = pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))


def _check_kl(model: nn.Module, layers: list[BayesLinear]) -> None:
    """Value and gradients are those of the parameters as they are now."""
    now = kl(model)
    assert now.item() == pytest.approx(sum(map(exact_kl, layers)), rel=1e-5)
    parameters = [p for layer in layers for p in layer.parameters()]
    computed = sum(layer.compute_kl() for layer in layers)
    assert isinstance(computed, Tensor)
    torch.testing.assert_close(
        torch.autograd.grad(now, parameters), torch.autograd.grad(computed, parameters)
    )


@of_each_change
def test_kl_is_never_stale(change: Any) -> None:
    layer = BayesLinear(5, 4)
    layer(torch.randn(2, 5))
    before = exact_kl(layer)
    change(layer)
    assert abs(exact_kl(layer) - before) > 1
    _check_kl(layer, [layer])


def test_kl_after_the_parametrization_changed() -> None:
    layer = BayesLinear(5, 4)
    layer(torch.randn(2, 5))
    for name in layer.posteriors:
        layer.posteriors[name] = posteriors.Normal("log_scale")
    assert kl(layer).item() == pytest.approx(layer.compute_kl().item(), rel=1e-6)


def test_kl_reaches_what_was_frozen_in_the_forward_pass() -> None:
    layer = BayesLinear(5, 4)
    layer.bias_loc.requires_grad_(False)
    layer(torch.randn(2, 5))
    layer.bias_loc.requires_grad_(True)
    _check_kl(layer, [layer])


def test_kl_is_that_of_the_parameters_in_use() -> None:
    layer = BayesLinear(5, 4)
    other = {k: (v.detach() + 1).requires_grad_() for k, v in layer.named_parameters()}

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x)
            return kl(self)

    model = Loss()
    inside = torch.func.functional_call(
        model, {f"layer.{k}": v for k, v in other.items()}, (torch.randn(2, 5),)
    )
    assert torch.autograd.grad(inside, other["weight_loc"])[0].any()
    before = exact_kl(layer)
    layer.load_state_dict(other)
    assert inside.item() == pytest.approx(exact_kl(layer), rel=1e-5)
    assert abs(inside.item() - before) > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_divergences_of_sixteen_bit_layers_are_float32(dtype: torch.dtype) -> None:
    """They are float32 if computed on request, by a layer's pass, and by one draw of all layers."""
    layer = BayesLinear(150, 150).to(dtype)
    x = torch.randn(2, 150, dtype=dtype)
    computed = kl(layer)
    assert layer(x).dtype == dtype
    of_pass = kl(layer)
    with one_draw(layer):
        of_draw = kl(layer)
    (of_pass + of_draw).backward()
    assert layer.weight_loc.grad is not None
    assert layer.weight_loc.grad.dtype == dtype
    wanted = kl(layer.float()).item()
    assert wanted > 66_000  # which is no float16
    for value in (computed, of_pass, of_draw):
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(wanted, rel=1e-6)


def test_a_step_with_fused_ops_is_that_of_separate_ones() -> None:
    layer = BayesLinear(5, 4)
    x = torch.randn(3, 5)
    gradients = []
    for divergence in (kl, lambda model: model.compute_kl()):
        y = layer(x, seed=1)
        loss = y.square().sum() + divergence(layer)
        gradients.append(torch.autograd.grad(loss, list(layer.parameters())))
    torch.testing.assert_close(*gradients)


def test_backward_of_an_earlier_pass_forgets_the_kl_of_a_later_one() -> None:
    layer = BayesLinear(5, 4)
    first, _ = layer(torch.randn(2, 5)), layer(torch.randn(2, 5))
    first.sum().backward()
    layer.weight_loc.data.add_(1)
    assert kl(layer).item() == pytest.approx(exact_kl(layer), rel=1e-5)


def test_kl_after_backward_can_be_differentiated() -> None:
    layer = BayesLinear(5, 4)
    layer(torch.randn(2, 5)).sum().backward()
    kl(layer).backward()
    assert layer.weight_loc.grad is not None


def test_kl_without_gradients_after_a_pass_with_gradients() -> None:
    layer = BayesLinear(5, 4)
    layer(torch.randn(2, 5))
    with torch.no_grad():
        value = kl(layer)
    assert not value.requires_grad
    assert kl(layer).requires_grad


def test_kl_after_functional_call_is_that_of_the_module() -> None:
    layer = BayesLinear(5, 4)
    other = {k: v.detach() + 1 for k, v in layer.named_parameters()}
    torch.func.functional_call(layer, other, (torch.randn(2, 5),))
    assert kl(layer).item() == pytest.approx(exact_kl(layer), rel=1e-5)


def test_shared_layer_counts_once() -> None:
    layer = BayesLinear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    model(torch.randn(2, 4))
    assert kl(model).item() == pytest.approx(exact_kl(layer), rel=1e-5)


def test_copies_and_files_after_a_forward_pass() -> None:
    model = nn.Sequential(BayesLinear(4, 3), nn.ReLU(), BayesLinear(3, 1))
    model(torch.randn(2, 4))
    expected = kl(copy.deepcopy(model)).item()
    assert kl(pickle.loads(pickle.dumps(model))).item() == expected
    fresh = nn.Sequential(BayesLinear(4, 3), nn.ReLU(), BayesLinear(3, 1))
    fresh.load_state_dict(model.state_dict())
    assert kl(fresh).item() == expected
    assert set(model.state_dict()) == {
        f"{i}.{name}"
        for i in (0, 2)
        for name in ("weight_loc", "weight_raw_scale", "bias_loc", "bias_raw_scale")
    }


def test_the_kl_of_a_pass_keeps_no_graph_alive_once_taken() -> None:
    layer = BayesLinear(4, 3)
    x = torch.randn(2, 4)
    reference = weakref.ref(x)
    value = kl(nn.Sequential(layer)) if layer(x) is not None else None
    del x, value
    gc.collect()
    assert reference() is None


def test_compiled_layer_in_one_graph() -> None:
    layer = BayesLinear(4, 3)

    def loss(x: Tensor) -> Tensor:
        return layer(x).square().sum() + kl(layer)

    torch.compile(loss, fullgraph=True, backend="aot_eager")(torch.randn(2, 4)).backward()
    assert layer.bias_raw_scale.grad is not None


def test_no_bias_double_and_context() -> None:
    layer = BayesLinear(4, 3, bias=False).double()
    y = layer(torch.randn(7, 2, 4, dtype=torch.float64))
    assert y.shape == (7, 2, 3)
    assert y.dtype == torch.float64
    assert "bias=False" in repr(layer)
    assert len(list(layer.parameters())) == 2


def test_autocast_runs_the_divergence_in_float32() -> None:
    layer = BayesLinear(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(2, 4))
        divergence = kl(layer)
    assert y.dtype == torch.bfloat16
    assert divergence.dtype == torch.float32
    (y.float().sum() + divergence).backward()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "in_features: expected an integer of at least 1, got 0"),
        ({"out_features": 2.5}, TypeError, "out_features: expected an integer"),
        ({"prior_scale": 0.0}, ValueError, "prior_scale: expected a finite number above 0"),
        ({"prior_loc": "0"}, TypeError, "prior_loc: expected a finite number"),
        ({"init_scale": -1.0}, ValueError, "init_scale"),
        ({"parametrization": "rho"}, ValueError, "parametrization: expected one of"),
    ],
)
def test_construction_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BayesLinear(**{"in_features": 3, "out_features": 2, **options})


def test_input_errors() -> None:
    layer = BayesLinear(4, 3)
    with pytest.raises(ValueError, match=r"x: expected shape \[..., 4\]"):
        layer(torch.zeros(2, 5))
    with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor"):
        layer([[1.0] * 4])
    with pytest.raises(TypeError, match="x: expected the dtype of weight_loc"):
        layer(torch.zeros(2, 4).double())


def test_kl_errors() -> None:
    with pytest.raises(ValueError, match="model: expected a module with Bayesian layers"):
        kl(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        kl([1, 2])  # type: ignore[arg-type]


def test_public_names() -> None:
    for name in ("nn", "bnn", "functional", "reference", "likelihoods"):
        assert hasattr(bslfast, name)


def _three_layers() -> nn.Sequential:
    return nn.Sequential(
        BayesLinear(3, 4, prior_loc=0.1, prior_scale=0.5),
        nn.Tanh(),
        BayesLinear(4, 4, bias=False, parametrization="log_scale"),
        BayesLinear(4, 2),
    )


def test_one_draw_holds_inside_and_only_there() -> None:
    model, x = _three_layers(), torch.randn(5, 3)
    with one_draw(model):
        first, again = model(x), model(x)
        weight = model[0].drawn[0]
        with one_draw(model[0]):  # keeps what there is
            assert torch.equal(model(x), first)
        assert torch.equal(model(x), first)
        assert model[0].drawn[0] is weight
        own = model[0](x, seed=7)
        assert torch.equal(own, model[0](x, seed=7))
        assert not torch.equal(own, model[0](x))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(x))
    assert all(model[i].drawn is None for i in (0, 2, 3))


def test_one_draw_ends_with_an_error_inside() -> None:
    layer = BayesLinear(3, 2)
    with pytest.raises(RuntimeError, match="stop"), one_draw(layer):
        raise RuntimeError("stop")
    assert layer.drawn is None


def test_draws_together_are_those_of_the_posteriors() -> None:
    model = _three_layers()
    with one_draw(model, seed=3):
        for index, stream in ((0, 0), (3, 2), (2, 4)):  # log_scale comes last
            layer = model[index]
            alone = BF.normal_rsample(
                layer.weight_loc,
                layer.weight_raw_scale,
                parametrization=layer.posteriors["weight"].parametrization,
                seed=3,
                stream=stream,
            )
            assert torch.equal(layer.drawn[0], alone)


def test_kl_and_gradients_after_one_draw() -> None:
    model, x = _three_layers(), torch.randn(5, 3)
    parameters = list(model.parameters())
    with one_draw(model, seed=3):
        remembered = kl(model)
        loss = model(x).square().sum() + remembered
        grads = torch.autograd.grad(loss, parameters)
        computed = kl(model)
        again = model(x).square().sum()
    assert computed is not remembered
    torch.testing.assert_close(computed, remembered)
    expected = sum(model[i].compute_kl().item() for i in (0, 2, 3))
    assert remembered.item() == pytest.approx(expected, rel=1e-6)
    with one_draw(model, seed=3):
        without = model(x).square().sum()
    assert torch.equal(without, again)
    separate = torch.autograd.grad(
        without + sum(model[i].compute_kl() for i in (0, 2, 3)), parameters
    )
    torch.testing.assert_close(grads, separate, rtol=1e-5, atol=1e-6)


def test_kl_of_a_part_of_what_was_drawn_together() -> None:
    model = nn.Sequential(BayesLinear(3, 4), BayesLinear(4, 2))
    with one_draw(model):
        part = kl(model[0])
        assert part.item() == pytest.approx(exact_kl(model[0]), rel=1e-5)
        assert kl(model).item() == pytest.approx(exact_kl(model[0]) + exact_kl(model[1]), rel=1e-5)
    with one_draw(model):
        model[1](torch.randn(2, 4), seed=1)  # remembers one of its own
        assert kl(model).item() == pytest.approx(exact_kl(model[0]) + exact_kl(model[1]), rel=1e-5)


@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize(
    "change", [f for f in CHANGES if f is not _old_style_optimizer], ids=lambda f: f.__name__
)
def test_kl_after_one_draw_is_never_a_stale_one(changed: int, change: Any) -> None:
    layers = [BayesLinear(5, 5), BayesLinear(5, 5)]
    model = nn.Sequential(*layers)
    with one_draw(model):
        model(torch.ones(1, 5))
    change(layers[changed])
    _check_kl(model, layers)


def test_backward_of_one_layer_ends_what_both_remember() -> None:
    model = nn.Sequential(BayesLinear(3, 2), BayesLinear(2, 2))
    alone = model[1](torch.ones(1, 2))
    with one_draw(model):
        model(torch.ones(1, 3))
    alone.sum().backward()
    model[1].weight_loc.data.add_(1)
    expected = exact_kl(model[0]) + exact_kl(model[1])
    assert kl(model).item() == pytest.approx(expected, rel=1e-5)


def test_what_one_draw_refuses() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn"), one_draw(3):
        pass
    with pytest.raises(ValueError, match="Bayesian layers"), one_draw(nn.Linear(2, 2)):
        pass
    layer = BayesLinear(3, 2)
    with one_draw(layer), pytest.raises(ValueError, match=r"x: expected shape \[..., 3\]"):
        layer(torch.zeros(4, 2))


def test_copies_and_pickles_have_no_draws() -> None:
    layer = BayesLinear(3, 2)
    with one_draw(layer):
        assert pickle.loads(pickle.dumps(layer)).drawn is None
        assert copy.deepcopy(layer).drawn is None


def test_parametrized_by_torch() -> None:
    layer = BayesLinear(3, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight_loc", nn.Hardtanh(-0.1, 0.1))
    assert kl(layer).item() == pytest.approx(exact_kl(layer), rel=1e-5)
    with one_draw(layer, seed=1):
        together = layer(torch.eye(3))
    torch.testing.assert_close(together, layer(torch.eye(3), seed=1))


class _Mixed(bslfast.nn.BayesianModule):
    """A module of weights with different parametrizations."""

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.raw = (
            nn.ParameterList(torch.full((50,), value) for _ in range(2)) for value in (0.5, -2.0)
        )

    def weights(self) -> list[bslfast.nn.Weight]:
        return [
            bslfast.nn.NormalWeight(loc, raw, 0.0, 1.0, parametrization)
            for loc, raw, parametrization in zip(
                self.loc, self.raw, ("softplus", "log_scale"), strict=True
            )
        ]


def test_weights_of_several_parametrizations_in_a_layer() -> None:
    layer = _Mixed()
    with one_draw(layer, seed=3):
        for stream, sample in enumerate(layer.drawn):
            alone = BF.normal_rsample(
                layer.loc[stream],
                layer.raw[stream],
                parametrization=("softplus", "log_scale")[stream],
                seed=3,
                stream=stream,
            )
            assert torch.equal(sample, alone)
        expected = sum(
            BF.normal_kl(layer.loc[0], layer.raw[0], parametrization=p)
            for p in ("softplus", "log_scale")
        )
        torch.testing.assert_close(layer.compute_kl(), expected)
        remembered = layer._remembered
        assert remembered is not None
        assert remembered.total().item() == pytest.approx(layer.compute_kl().item(), rel=1e-6)
        layer.drawn[1].sum().backward()
        assert layer._remembered is None


def test_kl_of_a_parametrized_layer_is_never_a_stale_one() -> None:
    layer = BayesLinear(3, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight_loc", nn.Hardtanh(-9.0, 9.0))
    layer(torch.ones(1, 3))
    with torch.no_grad():
        layer.parametrizations.weight_loc.original.add_(1)
    assert kl(layer).item() == pytest.approx(exact_kl(layer), rel=1e-5)


def test_tied_layers_have_one_draw_each_and_right_gradients() -> None:
    first, second = BayesLinear(3, 3), BayesLinear(3, 3)
    second.weight_loc = first.weight_loc
    model = nn.Sequential(first, second)
    gradients = []
    for create_graph in (False, True):
        with one_draw(model, seed=1):
            loss = model(torch.ones(2, 3)).square().sum() + kl(model)
        gradients.append(torch.autograd.grad(loss, first.weight_loc, create_graph=create_graph)[0])
    torch.testing.assert_close(*gradients)
