"""bslfast.distributions beside torch.distributions: the same contract, the same numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.distributions as td
from torch import Tensor

import bslfast.distributions as bd
import bslfast.functional as BF

SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": lambda raw: raw,
    "softplus": torch.nn.functional.softplus,
    "log_scale": torch.exp,
    "log_var": lambda raw: torch.exp(0.5 * raw),
}
MAKERS: dict[str, Callable[..., bd.Normal]] = {
    "scale": bd.Normal,
    "softplus": bd.Normal.from_softplus,
    "log_scale": bd.Normal.from_log_scale,
    "log_var": bd.Normal.from_log_var,
}
of_each_parametrization = pytest.mark.parametrize("parametrization", SCALES)


def raw_of(*shape: int) -> Tensor:
    return (torch.rand(shape, dtype=torch.float64) + 0.3).requires_grad_()


@of_each_parametrization
def test_normal_is_that_of_torch(parametrization: str) -> None:
    """Values and gradients of all methods and properties agree with torch's."""
    loc, raw = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), raw_of(3)
    ours, theirs = MAKERS[parametrization](loc, raw), td.Normal(loc, SCALES[parametrization](raw))
    assert isinstance(ours, td.Normal)
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    other = td.Normal(torch.zeros_like(loc), 2.0)
    for function in (
        lambda d: d.log_prob(x),
        lambda d: d.log_prob(x[0, 0]),
        lambda d: d.cdf(x),
        lambda d: d.icdf(x.sigmoid()),
        lambda d: d.entropy(),
        lambda d: d.mean,
        lambda d: d.variance,
        lambda d: d.stddev,
        lambda d: td.kl_divergence(d, other),
        lambda d: td.kl_divergence(other, d),
    ):
        found, expected = function(ours), function(theirs)
        torch.testing.assert_close(found, expected)
        grads = [
            torch.autograd.grad(y.square().sum(), (loc, raw), allow_unused=True, retain_graph=True)
            for y in (found, expected)
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


@of_each_parametrization
def test_normal_samples(parametrization: str) -> None:
    """Samples have the noise of the op; those of sample() have no gradient."""
    loc, raw = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), raw_of(3)
    ours = MAKERS[parametrization](loc, raw)
    torch.manual_seed(1)
    found = ours.rsample((2, 5))
    torch.manual_seed(1)
    expected = BF.normal_rsample(loc, raw, parametrization=parametrization, sample_shape=(2, 5))
    assert torch.equal(found, expected)
    assert found.requires_grad
    torch.manual_seed(1)
    assert torch.equal(ours.sample(torch.Size([2, 5])), expected)
    assert not ours.sample().requires_grad
    assert ours.has_rsample
    assert ours.rsample().shape == ours.batch_shape == (4, 3)


@of_each_parametrization
def test_normal_expands(parametrization: str) -> None:
    loc, raw = torch.randn(3, dtype=torch.float64), raw_of(3)
    plain = MAKERS[parametrization](loc, raw)
    wide = plain.expand((2, 3))
    assert type(wide) is bd.Normal
    assert wide.batch_shape == wide.loc.shape == wide.scale.shape == (2, 3)
    assert wide.parametrization == parametrization
    x = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(wide.log_prob(x), plain.log_prob(x))
    assert wide.rsample((7,)).shape == (7, 2, 3)
    assert wide.entropy().shape == (2, 3)
    assert wide.expand((5, 2, 3)).rsample().shape == (5, 2, 3)


def test_kl_of_our_own() -> None:
    """The divergence is right, also where the scale underflows and its logarithm does not."""
    for p_kind in SCALES:
        for q_kind in SCALES:
            p_loc, q_loc = torch.randn(2, 4, 3, dtype=torch.float64)
            p_raw, q_raw = raw_of(3), raw_of(4, 1)
            found = bd.kl_divergence(MAKERS[p_kind](p_loc, p_raw), MAKERS[q_kind](q_loc, q_raw))
            expected = td.kl_divergence(
                td.Normal(p_loc, SCALES[p_kind](p_raw)), td.Normal(q_loc, SCALES[q_kind](q_raw))
            )
            torch.testing.assert_close(found, expected)
            for a, b in zip(
                torch.autograd.grad(found.sum(), (p_raw, q_raw)),
                torch.autograd.grad(expected.sum(), (p_raw, q_raw)),
                strict=True,
            ):
                torch.testing.assert_close(a, b)
    tiny = bd.Normal.from_log_scale(torch.zeros(()), torch.tensor(-120.0))
    assert tiny.entropy() == pytest.approx(-120 + 1.4189385332)
    assert bd.kl_divergence(tiny, bd.Normal(0.0, 1.0)) == pytest.approx(119.5)


def test_numbers_and_types() -> None:
    assert bd.Normal(0.0, 1.0).batch_shape == ()
    assert bd.Normal(0.0, torch.ones(3, dtype=torch.float64)).loc.dtype == torch.float64
    assert bd.Normal(torch.zeros(2, 1), torch.ones(3)).batch_shape == (2, 3)
    assert bd.Normal(0.0, 1.0).log_prob(torch.zeros(4)).shape == (4,)
    with pytest.raises(TypeError, match=r"^scale: expected a finite number"):
        bd.Normal(torch.zeros(2), "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^scale: expected the dtype of loc"):
        bd.Normal(torch.zeros(2), torch.ones(2).double())
    with pytest.raises(ValueError, match=r"^raw_scale: .*\[2\].*\[3\]"):
        bd.Normal(torch.zeros(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"^parametrization: "):
        bd.Normal(0.0, 1.0, parametrization="sigma")


def test_validation_is_that_of_torch() -> None:
    with pytest.raises(ValueError, match="scale"):
        bd.Normal(torch.zeros(2), torch.tensor([1.0, -1.0]), validate_args=True)
    with pytest.raises(ValueError, match="loc"):
        bd.Normal(torch.full((2,), torch.nan), torch.ones(2), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        bd.Normal(0.0, 1.0, validate_args=True).log_prob(torch.tensor(torch.nan))
    assert bd.Normal(0.0, 1.0, validate_args=False).log_prob(torch.tensor(torch.nan)).isnan()
    bd.Normal.from_log_scale(torch.zeros(2), torch.tensor([1.0, -1.0]), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        bd.Bernoulli(torch.zeros(2), validate_args=True).log_prob(torch.tensor([0.0, 0.5]))
    with pytest.raises(ValueError, match="support"):
        bd.Categorical(torch.zeros(4), validate_args=True).log_prob(torch.tensor(4))
    with pytest.raises(ValueError, match="support"):
        bd.Poisson(torch.zeros(2), validate_args=True).log_prob(torch.tensor([0.0, -1.0]))
    with pytest.raises(ValueError, match="log_rate"):
        bd.Poisson(torch.full((2,), torch.nan), validate_args=True)
    with pytest.raises(ValueError, match=r"^logits: "):
        bd.Categorical(torch.full((2,), torch.nan), validate_args=True)
    with pytest.raises(ValueError, match=r"^logits: expected shape"):
        bd.Categorical(torch.zeros(()))


# --- in torch's own machinery ---------------------------------------------------------------------


def test_independent() -> None:
    loc, raw = torch.randn(4, 3), torch.randn(3)
    ours = td.Independent(bd.Normal.from_softplus(loc, raw), 1)
    theirs = td.Independent(td.Normal(loc, torch.nn.functional.softplus(raw)), 1)
    assert ours.batch_shape == (4,)
    assert ours.event_shape == (3,)
    x = ours.rsample((2,))
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    other = td.Independent(bd.Normal(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    torch.testing.assert_close(td.kl_divergence(ours, other), td.kl_divergence(theirs, other))
    assert ours.expand((5, 4)).rsample().shape == (5, 4, 3)


def test_transformed() -> None:
    loc, raw = torch.randn(4), torch.randn(4)
    ours = td.TransformedDistribution(
        bd.Normal.from_log_scale(loc, raw), [td.transforms.ExpTransform()]
    )
    theirs = td.LogNormal(loc, raw.exp())
    x = ours.rsample((6,))
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.cdf(x), theirs.cdf(x))
    assert ours.expand((3, 4)).rsample().shape == (3, 4)


def test_mixture() -> None:
    logits, loc, raw = torch.randn(5, 3), torch.randn(5, 3), torch.randn(5, 3)
    ours = td.MixtureSameFamily(bd.Categorical(logits), bd.Normal.from_log_scale(loc, raw))
    theirs = td.MixtureSameFamily(td.Categorical(logits=logits), td.Normal(loc, raw.exp()))
    x = ours.sample((7,))
    assert x.shape == (7, 5)
    for name in ("log_prob", "cdf"):
        torch.testing.assert_close(getattr(ours, name)(x), getattr(theirs, name)(x))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)
    assert ours.expand((2, 5)).sample().shape == (2, 5)


def test_copies_and_gradients_through_a_module() -> None:
    q = bd.Normal.from_softplus(torch.zeros(3), torch.zeros(3))
    assert torch.equal(copy.deepcopy(q).scale, q.scale)
    assert "Normal" in repr(q)
    compiled = torch.compile(
        lambda loc, raw, x: bd.Normal.from_softplus(loc, raw, validate_args=False).log_prob(x),
        backend="aot_eager",
    )
    torch.testing.assert_close(
        compiled(torch.zeros(3), torch.zeros(3), torch.ones(3)), q.log_prob(torch.ones(3))
    )


# --- discrete -------------------------------------------------------------------------------------


def pairs() -> list[tuple[td.Distribution, td.Distribution, Tensor]]:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    ones = torch.randint(0, 2, (5, 4, 3)).double()
    classes = torch.randint(0, 3, (5, 4))
    counts = torch.randint(0, 9, (5, 4, 3)).double()
    return [
        (bd.Bernoulli(logits), td.Bernoulli(logits=logits), ones),
        (bd.Categorical(logits), td.Categorical(logits=logits), classes),
        (bd.Poisson(logits), td.Poisson(logits.exp()), counts),
        (
            bd.NegativeBinomial(logits, logits[0] - 0.5),
            td.NegativeBinomial((logits[0] - 0.5).exp(), logits=logits - logits[0] + 0.5),
            counts,
        ),
    ]


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_discrete_are_those_of_torch(index: int) -> None:
    ours, theirs, x = pairs()[index]
    assert isinstance(ours, type(theirs))
    assert ours.batch_shape == theirs.batch_shape
    assert ours.event_shape == theirs.event_shape == ()
    assert str(ours.support) == str(theirs.support)
    assert ours.has_rsample == theirs.has_rsample
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.mean, theirs.mean, equal_nan=True)
    torch.testing.assert_close(ours.variance, theirs.variance, equal_nan=True)
    if index < 2:
        torch.testing.assert_close(ours.entropy(), theirs.entropy())
        assert torch.equal(ours.enumerate_support(), theirs.enumerate_support())
        torch.testing.assert_close(ours.probs, theirs.probs)
        torch.testing.assert_close(ours.logits, theirs.logits)
    if index < 3:
        torch.testing.assert_close(td.kl_divergence(ours, ours), td.kl_divergence(theirs, theirs))
    torch.manual_seed(0)
    drawn = ours.sample((6,))
    torch.manual_seed(0)
    torch.testing.assert_close(drawn, theirs.sample((6,)))


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_discrete_expand(index: int) -> None:
    ours, theirs, x = pairs()[index]
    wide, other = (d.expand(torch.Size([5, *d.batch_shape])) for d in (ours, theirs))
    assert type(wide) is type(ours)
    assert wide.batch_shape == other.batch_shape
    torch.testing.assert_close(wide.log_prob(x), other.log_prob(x))
    assert wide.sample((2,)).shape == other.sample((2,)).shape
    torch.testing.assert_close(wide.mean, other.mean, equal_nan=True)
