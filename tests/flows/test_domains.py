"""Supports of flows, transforms that do not fit, Standardize, and flows that torch traces."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

from bslfast import distributions
from bslfast.flows import (
    ActNorm,
    AffineCoupling,
    Atanh,
    Composite,
    Exp,
    Flow,
    Householder,
    Images,
    Inverse,
    Log,
    Logit,
    Permutation,
    PerPixel,
    Planar,
    RealNVP,
    Reverse,
    Sigmoid,
    Softplus,
    SplineCoupling,
    Squeeze,
    Standardize,
    Sylvester,
    Tanh,
    Transform,
)
from bslfast.flows.planar import solve_tanh

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
INF = math.inf


# --- supports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "inside", "outside"),
    [
        (lambda: Logit(2), 0.5, [0.0, 1.0, 1.5, -1.0]),
        (lambda: Inverse(Tanh(2)), 0.5, [1.0, -1.0, 1.5]),
        (lambda: Log(2), 0.5, [0.0, -1.0]),
        (lambda: Composite([Reverse(2), Logit(2), AffineCoupling(2)]), 0.5, [0.0, 1.5]),
        (lambda: Composite([standardizer(), Logit(2)]), 11.0, [0.0, 30.0]),
        (lambda: Images((2, 1, 1), [PerPixel(Atanh(2))]), 0.5, [1.0, -2.0]),
        (lambda: Images((2, 1, 1), [PerPixel(standardizer()), PerPixel(Logit(2))]), 11.0, [0.0]),
        (lambda: AffineCoupling(2), 1e9, []),
    ],
)
def test_support(transform: Callable[[], Transform], inside: float, outside: list[float]) -> None:
    flow = Flow(transform())
    distribution = flow.distribution()
    checked = type(distribution)(flow, validate_args=True)
    x = torch.full((2,), inside)
    assert distribution.support.check(x)
    assert distribution.support.check(distribution.sample((50,), seed=0)).all()
    assert flow.log_prob(x).isfinite()
    torch.testing.assert_close(checked.log_prob(x), flow.log_prob(x))
    for value in outside:
        x = torch.tensor([inside, value])
        assert not distribution.support.check(x)
        assert flow.log_prob(x) == -INF
        with pytest.raises(ValueError, match="within the support"):
            checked.log_prob(x)


def standardizer() -> Standardize:
    """A Standardize with mean 10 and standard deviation 2."""
    return Standardize.from_data(torch.tensor([[8.0, 8.0], [12.0, 12.0]]))


def test_a_support_that_depends_on_the_context() -> None:
    first = AffineCoupling(1, context=1)
    with torch.no_grad():  # z = x + context
        for parameter in first.parameters():
            parameter.zero_()
        first.conditioner.layers[0].weight[0] = 1
        first.conditioner.layers[0].bias[0] = 10
        first.conditioner.layers[1].weight[0, 0] = 1
        first.conditioner.layers[2].weight[0, 0] = 1
        first.conditioner.layers[2].bias[0] = -10
    distribution = Flow(Composite([first, Logit(1)])).distribution(torch.tensor([[0.0], [-5.0]]))
    assert distribution.support.check(torch.tensor([0.5])).tolist() == [True, False]
    assert distribution.support.check(torch.tensor([[5.5]])).tolist() == [False, True]


def test_biject_to_the_support() -> None:
    support = Flow(Logit(2)).distribution().support
    for found in (
        torch.distributions.biject_to(support),
        torch.distributions.transform_to(support),
    ):
        assert support.check(found(torch.randn(5, 2))).all()


def test_densities_of_known_flows() -> None:
    x = torch.rand(7, 1, **DOUBLE) * 0.9 + 0.05
    normal = torch.distributions.Normal(torch.zeros(1, **DOUBLE), torch.ones(1, **DOUBLE))
    for transform, torchs in (
        (Log(1), [torch.distributions.ExpTransform()]),
        (Inverse(Exp(1)), [torch.distributions.ExpTransform()]),
        (Atanh(1), [torch.distributions.TanhTransform()]),
        (Logit(1), [torch.distributions.SigmoidTransform()]),
        (Inverse(Softplus(1)), [torch.distributions.SoftplusTransform()]),
    ):
        expected = torch.distributions.TransformedDistribution(normal, torchs).log_prob(x)
        torch.testing.assert_close(Flow(transform).double().log_prob(x), expected.squeeze(-1))


def test_splines_without_tails_between_bounds() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"tails": None, "bound": 1.0, "hidden": (8,), "bins": 4, **DOUBLE}
    steps = [SplineCoupling(2, flip=flip, **options) for flip in (False, True)]
    flow = Flow(Composite([*steps, Atanh(2)]))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        x, log_prob = flow.rsample_and_log_prob(500, seed=0)
        assert (x.abs() < 1).all()
        torch.testing.assert_close(flow.log_prob(x), log_prob)
        side = (torch.arange(400, **DOUBLE) + 0.5) / 200 - 1
        density = flow.log_prob(torch.cartesian_prod(side, side)).exp()
    assert density.sum().item() / 200**2 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Flow(Tanh(2)), r"Tanh maps onto \(-1, 1\) and the noise is on all numbers"),
        (lambda: Flow(Inverse(Log(2))), r"transform \(Inverse\(Log\)\) maps onto \(0, inf\)"),
        (
            lambda: Flow(Composite([AffineCoupling(2), Tanh(2)])),
            r"transforms\[1\] \(Tanh\) maps onto \(-1, 1\)",
        ),
        (
            lambda: Flow(Composite([AffineCoupling(2), Composite([Sigmoid(2), Reverse(2)])])),
            r"transforms\[1\].transforms\[0\] \(Sigmoid\) maps onto \(0, 1\)",
        ),
        (
            lambda: Flow(Composite([Softplus(2), AffineCoupling(2)])),
            r"transforms\[0\] \(Softplus\) maps onto \(0, inf\) and transforms\[1\] \(AffineCoup",
        ),
        (lambda: Flow(SplineCoupling(2, tails=None)), r"SplineCoupling maps onto \(-3, 3\)"),
        (
            lambda: Flow(Images((1, 2, 2), [PerPixel(Sigmoid(1)), Squeeze(1)])),
            r"transforms\[0\].transform \(Sigmoid\) maps onto \(0, 1\)",
        ),
        (
            lambda: Composite([Sigmoid(2), AffineCoupling(2), Logit(2)]),
            r"transforms\[1\] \(AffineCoupling\) maps onto all numbers and transforms\[2\] \(Logit",
        ),
        (
            lambda: Composite([Softplus(2), Atanh(2)]),
            r"transforms\[0\] \(Softplus\) maps onto \(0, inf\) and transforms\[1\] \(Atanh\)",
        ),
    ],
)
def test_transforms_that_do_not_fit(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=rf"^transforms?: expected .*{text}"):
        make()


def test_transforms_that_fit() -> None:
    for steps in (
        [Sigmoid(2), Reverse(2), Logit(2)],
        [Permutation([1, 0])],
        [AffineCoupling(2), Logit(2)],
        [Softplus(2), Inverse(Composite([AffineCoupling(2), Softplus(2)]))],
        [Inverse(Composite([AffineCoupling(2), Sigmoid(2)]))],
    ):
        flow = Flow(Composite(steps))
        assert flow.sample(100, seed=0).isfinite().all()
    # A map from noise to data need not be one from data to noise. Only a flow must be.
    assert Composite([AffineCoupling(2), Tanh(2)])(torch.ones(2))[0].abs().max() < 1
    assert Composite([AffineCoupling(2), Logit(2)]).codomain is constraints.real_vector


# --- Standardize ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
@pytest.mark.parametrize("cls", [ActNorm, Standardize])
def test_scales_of_every_size(cls: Any, size: float) -> None:
    """Squares of these scales are not numbers of float32."""
    torch.manual_seed(0)
    x = size * (torch.randn(200, 3) * torch.tensor([1.0, 3.0, 7.0]) + 0.5)
    module = Standardize.from_data(x) if cls is Standardize else ActNorm(3)
    z, log_det = module(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3), rtol=1e-5, atol=0)
    expected = -x.double().std(0, correction=0).log().sum()
    torch.testing.assert_close(log_det.double(), expected.expand(200), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(module.inverse(z)[0], x, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0]]), r"constant columns \[1, 2\] \(at 2, 3"),
        (torch.tensor([[1.0, math.nan], [2.0, 2.0]]), r"NaN or infinity in columns \[1\]"),
        (torch.ones(0, 2), "at least one row"),
        (torch.ones(2), r"of shape \[n, features\]"),
    ],
)
def test_standardize_refuses(x: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=f"^x: expected .*{text}"):
        Standardize.from_data(x)


# --- distributions --------------------------------------------------------------------------------

ARGUMENTS: dict[str, Any] = {
    "concentration": torch.ones(2),
    "cov_diag": torch.ones(2),
    "cov_factor": torch.ones(2, 1),
    "df": torch.full((2,), 3.0),
    "loc": torch.zeros(2),
    "log_rate": torch.zeros(2),
    "log_total_count": torch.zeros(2),
    "logits": torch.zeros(2),
    "scale": torch.ones(2),
    "temperature": 0.5,
}


def every_distribution() -> list[torch.distributions.Distribution]:
    found: list[Any] = [RealNVP(2).distribution()]
    for name in distributions.__all__:
        cls: Any = getattr(distributions, name)
        if not inspect.isclass(cls) or cls in (distributions.RawScale, distributions.LocationScale):
            continue
        parameters = inspect.signature(cls.__init__).parameters.values()
        needed = [p.name for p in parameters if p.default is p.empty and p.name in ARGUMENTS]
        more = {"scale_tril": torch.eye(2)} if name == "MultivariateNormal" else {}
        found.append(cls(**{key: ARGUMENTS[key] for key in needed}, **more))
    return found


@pytest.mark.parametrize("one", every_distribution(), ids=lambda one: type(one).__name__)
def test_a_number_where_a_shape_is_meant(one: Any) -> None:
    for draw in (one.sample, one.rsample) if one.has_rsample else (one.sample,):
        assert draw((5,)).shape == draw(torch.Size([5])).shape == draw([5]).shape
        assert draw((5,)).shape[0] == 5
        with pytest.raises(
            TypeError, match=r"^sample_shape: expected a shape, such as \(5,\), got 5"
        ):
            draw(5)


def test_the_text_of_a_distribution() -> None:
    distribution = RealNVP(3, context=2).distribution(torch.zeros(5, 2))
    assert repr(distribution) == "FlowDistribution(RealNVP, batch_shape: (5,), event_shape: (3,))"


def test_contexts_broadcast_over_a_batch_of_one() -> None:
    torch.manual_seed(0)
    flow = RealNVP(3, context=2, transforms=2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    x, context = torch.randn(1, 3), torch.randn(5, 2)
    expected = flow.log_prob(x.expand(5, 3), context)
    for one in (x, x[0]):
        torch.testing.assert_close(flow.log_prob(one, context), expected)
        for function in (flow.transform, flow.transform.inverse, Inverse(flow.transform)):
            z, log_det = function(one, context)
            assert z.shape == (5, 3)
            torch.testing.assert_close((z, log_det), function(x.expand(5, 3), context))
    assert flow.log_prob(torch.randn(4, 1, 3), context).shape == (4, 5)


# --- what torch.func and torch.compile do ---------------------------------------------------------


@pytest.mark.parametrize("name", ["planar", "sylvester"])
def test_inverses_are_traced(name: str) -> None:
    torch.manual_seed(0)
    transform: Any = Planar(2, **DOUBLE) if name == "planar" else Sylvester(2, rank=1, **DOUBLE)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    z = torch.randn(5, 2, **DOUBLE)
    expected = transform.inverse(z)
    torch.testing.assert_close(torch.func.vmap(transform.inverse)(z), expected)
    compiled = torch.compile(transform.inverse, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z), expected)
    score = torch.func.vmap(torch.func.grad(lambda row: transform.inverse(row)[1]))(z)
    z.requires_grad_()
    wanted = torch.autograd.grad(transform.inverse(z)[1].sum(), z)[0]
    torch.testing.assert_close(score, wanted)


def test_solve_tanh_is_right_as_far_as_its_condition() -> None:
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(5_000, generator=generator, **DOUBLE)

    for det in (10 ** uniform(-30, 3), 1 + 10 ** uniform(-5, 7), torch.ones(5_000, **DOUBLE)):
        a = 10 ** uniform(-15, 2.5) * torch.sign(uniform(-1, 1))
        t = torch.tanh(a)
        # Lambert's continued fraction of tanh, where a - tanh(a) cancels.
        square = torch.where(a.abs() < 1, a * a, 0.0)
        rest = torch.full_like(a, 27.0)
        for odd in range(25, 2, -2):
            rest = odd + square / rest
        c = torch.where(a.abs() < 1, a * square / (rest + square), a - t) + det * t
        slope = t * t + det * (1 - t * t)
        c.requires_grad_()
        found = solve_tanh(c, det)
        allowed = 4 * torch.finfo(torch.float64).eps * (c.abs() / slope + a.abs())
        assert ((found - a).abs() <= allowed).all()
        (grad,) = torch.autograd.grad(found.sum(), c)
        good = allowed < 1e-8 * a.abs()
        torch.testing.assert_close(grad[good], (1 / slope)[good], rtol=1e-6, atol=0)
    zeros = torch.tensor([0.0, -0.0], **DOUBLE)
    assert torch.equal(solve_tanh(zeros, torch.tensor(0.5, **DOUBLE)), zeros)


@pytest.mark.parametrize(
    "way", ["vmap", "nested vmap", "vmap of grad", "compile", "functional_call"]
)
def test_the_first_batch_of_act_norm_is_traced(way: str) -> None:
    torch.manual_seed(0)
    x = 4 * torch.randn(40, 3, **DOUBLE) + 7
    eager, norm = ActNorm(3, **DOUBLE), ActNorm(3, **DOUBLE)
    expected: Any = eager(x)[0]
    found: Any = None
    if way == "vmap":
        found = torch.func.vmap(norm)(x)[0]
    elif way == "nested vmap":
        found = torch.func.vmap(torch.func.vmap(norm))(x.view(4, 10, 3))[0].view(40, 3)
    elif way == "vmap of grad":
        found = torch.func.vmap(torch.func.grad(lambda row: norm(row)[0].square().sum() / 2))(x)
        expected = expected / eager.log_scale.exp()
    elif way == "compile":
        compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
        found = compiled(x)[0]
        torch.testing.assert_close(compiled(2 * x)[0], eager(2 * x)[0])
    else:
        found = torch.func.functional_call(norm, dict(norm.named_parameters()), (x,))[0]
    torch.testing.assert_close(found, expected)
    assert norm.initialized
    torch.testing.assert_close(norm.state_dict(), eager.state_dict())
    torch.testing.assert_close(norm(3 * x), eager(3 * x))


# --- reflections ----------------------------------------------------------------------------------


def test_a_reflection_without_a_direction_is_none() -> None:
    module = Householder(3, reflections=4, **DOUBLE)
    with torch.no_grad():
        module.vectors.copy_(torch.randn(4, 3))
        module.vectors[1] = 0
    fewer = Householder(3, reflections=3, **DOUBLE)
    with torch.no_grad():
        fewer.vectors.copy_(module.vectors[[0, 2, 3]])
    x = torch.randn(5, 3, **DOUBLE)
    torch.testing.assert_close(module(x), fewer(x))
    torch.testing.assert_close(module.inverse(x), fewer.inverse(x))
    (grad,) = torch.autograd.grad(module(x)[0].sin().sum(), module.vectors)
    (wanted,) = torch.autograd.grad(fewer(x)[0].sin().sum(), fewer.vectors)
    torch.testing.assert_close(grad[[0, 2, 3]], wanted)
    assert not grad[1].any()


@pytest.mark.parametrize("size", [1e-40, 1e-25, 1e25, 1e38])
def test_lengths_of_vectors_do_not_matter(size: float) -> None:
    """Squares of these lengths are not numbers of float32."""
    torch.manual_seed(0)
    module, x = Householder(3), torch.randn(5, 3)
    with torch.no_grad():
        module.vectors.copy_(torch.rand(4, 3) + 0.5)
        expected = module(x)[0]
        module.vectors *= size
        torch.testing.assert_close(module(x)[0], expected, rtol=1e-4, atol=1e-4)
