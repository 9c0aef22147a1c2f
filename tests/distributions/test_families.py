"""Student's t, log-normal, Gumbel and half-Cauchy distributions against torch's and scipy's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
import torch.distributions as td
from scipy import stats
from torch import Tensor

import bslfast.distributions as bd
import bslfast.functional as BF

FAMILIES: dict[str, type[bd.RawScale]] = {
    "StudentT": bd.StudentT,
    "LogNormal": bd.LogNormal,
    "Gumbel": bd.Gumbel,
    "HalfCauchy": bd.HalfCauchy,
}
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": lambda raw: raw,
    "softplus": torch.nn.functional.softplus,
    "log_scale": torch.exp,
    "log_var": lambda raw: torch.exp(0.5 * raw),
}
BATCH = (2, 3)
of_each_family = pytest.mark.parametrize("name", FAMILIES)
of_each_parametrization = pytest.mark.parametrize("parametrization", SCALES)


def parameters(name: str) -> list[Tensor]:
    """Parameters in front of the scale, and the raw scale; together they have shape BATCH."""
    df = torch.tensor([[1.5], [4.0]], dtype=torch.float64)
    loc = torch.tensor([[-1.0], [0.5]], dtype=torch.float64)
    raw = torch.tensor([[0.3, 1.0, 1.2]], dtype=torch.float64)
    if name == "HalfCauchy":
        given = [raw * torch.tensor([[1.0], [0.7]], dtype=torch.float64)]
    else:
        given = [df, loc, raw] if name == "StudentT" else [loc, raw]
    return [value.clone().requires_grad_() for value in given]


def ours_of(name: str, parametrization: str, given: list[Tensor], **options: Any) -> Any:
    family = FAMILIES[name]
    if parametrization == "scale":
        return family(*given, **options)
    return getattr(family, f"from_{parametrization}")(*given, **options)


def theirs_of(name: str, parametrization: str, given: list[Tensor]) -> td.Distribution:
    scale = SCALES[parametrization](given[-1])
    # Unchecked: torch's Gumbel refuses what its uniform distribution rounds to 0.
    made: td.Distribution = getattr(td, name)(*given[:-1], scale, validate_args=False)
    return made


def values(name: str) -> Tensor:
    """Seven numbers inside the support, none at its border."""
    x = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1, 1)
    return x.exp() if name in ("LogNormal", "HalfCauchy") else x


def functions(name: str) -> list[Callable[[Any], Tensor]]:
    x = values(name)
    u = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    common: list[Callable[[Any], Tensor]] = [
        lambda d: d.log_prob(x),
        lambda d: d.log_prob(x[0, 0]),
        lambda d: d.entropy(),
        lambda d: d.mean,
        lambda d: d.mode,
        lambda d: d.variance,
        lambda d: d.stddev,
    ]
    if name == "StudentT":  # of which torch has no distribution function
        return common
    return [*common, lambda d: d.cdf(x), lambda d: d.icdf(u)]


@of_each_family
@of_each_parametrization
def test_values_and_gradients_are_those_of_torch(name: str, parametrization: str) -> None:
    given = parameters(name)
    ours, theirs = (f(name, parametrization, given) for f in (ours_of, theirs_of))
    assert isinstance(ours, getattr(td, name))
    assert ours.batch_shape == theirs.batch_shape == BATCH
    assert ours.event_shape == theirs.event_shape == ()
    assert str(ours.support) == str(theirs.support)
    assert ours.has_rsample
    assert theirs.has_rsample
    for function in functions(name):
        found, expected = function(ours), function(theirs)
        torch.testing.assert_close(found, expected, equal_nan=True)
        assert found.requires_grad == expected.requires_grad
        if not expected.requires_grad or not expected.isfinite().all():
            continue
        grads = [
            torch.autograd.grad(y.square().sum(), given, allow_unused=True, retain_graph=True)
            for y in (found, expected)
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


@of_each_family
@of_each_parametrization
def test_samples_are_those_of_the_op(name: str, parametrization: str) -> None:
    given = parameters(name)
    ours = ours_of(name, parametrization, given)
    op = {"StudentT": BF.student_t_rsample, "LogNormal": BF.lognormal_rsample}.get(name)
    op = op or {"Gumbel": BF.gumbel_rsample, "HalfCauchy": BF.half_cauchy_rsample}[name]
    torch.manual_seed(1)
    found = ours.rsample((4, 5))
    torch.manual_seed(1)
    expected = op(*given, parametrization=parametrization, sample_shape=(4, 5))
    assert torch.equal(found, expected)
    assert found.shape == (4, 5, *BATCH)
    for a, b in zip(
        torch.autograd.grad(found.sum(), given),
        torch.autograd.grad(expected.sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    torch.manual_seed(1)
    assert torch.equal(ours.sample((4, 5)), expected)
    assert not ours.sample().requires_grad
    assert ours.rsample().shape == BATCH


@of_each_family
def test_samples_are_of_the_distribution(name: str) -> None:
    """Kolmogorov-Smirnov test; a fresh seed would fail one of the 24 once in 20 million."""
    given = [p.detach() for p in parameters(name)]
    q = ours_of(name, "softplus", given)
    torch.manual_seed(1)
    x = q.sample((50_000,))
    for i in range(BATCH[0]):
        for j in range(BATCH[1]):
            scale = q.scale[i, j].item()
            exact = {
                "StudentT": lambda s=scale, i=i: stats.t(given[0][i, 0], given[1][i, 0], s),
                "LogNormal": lambda s=scale, i=i: stats.lognorm(s, 0, given[0][i, 0].exp()),
                "Gumbel": lambda s=scale, i=i: stats.gumbel_r(given[0][i, 0], s),
                "HalfCauchy": lambda s=scale: stats.halfcauchy(0, s),
            }[name]()
            assert stats.kstest(x[:, i, j].numpy(), exact.cdf).pvalue > 2e-9


@of_each_family
@of_each_parametrization
def test_expand(name: str, parametrization: str) -> None:
    given = parameters(name)
    plain = ours_of(name, parametrization, given)
    wide, theirs = (
        d.expand(torch.Size((5, *BATCH))) for d in (plain, theirs_of(name, parametrization, given))
    )
    assert type(wide) is FAMILIES[name]
    assert wide.batch_shape == wide.scale.shape == (5, *BATCH)
    assert wide.parametrization == parametrization
    x = values(name)[:, None]
    torch.testing.assert_close(wide.log_prob(x), theirs.log_prob(x))
    for property_ in ("mean", "variance"):
        found, expected = (getattr(d, property_) for d in (wide, theirs))
        torch.testing.assert_close(found, expected, equal_nan=True)
    torch.testing.assert_close(wide.entropy(), theirs.entropy())
    assert wide.rsample((7,)).shape == (7, 5, *BATCH)
    assert wide.expand((4, 5, *BATCH)).rsample().shape == (4, 5, *BATCH)


@of_each_family
def test_in_torchs_own_machinery(name: str) -> None:
    """Shapes, log densities and samples are right in Independent and in transforms."""
    given = parameters(name)
    ours, theirs = (f(name, "softplus", given) for f in (ours_of, theirs_of))
    x = ours.rsample((4,))
    rows, their_rows = (td.Independent(d, 1) for d in (ours, theirs))
    assert rows.batch_shape == BATCH[:1]
    assert rows.event_shape == BATCH[1:]
    torch.testing.assert_close(rows.log_prob(x), their_rows.log_prob(x))
    torch.testing.assert_close(rows.entropy(), their_rows.entropy())
    assert rows.expand((6, *BATCH[:1])).rsample().shape == (6, *BATCH)
    affine = td.AffineTransform(0.5, -2.0)
    moved, their_moved = (td.TransformedDistribution(d, [affine]) for d in (ours, theirs))
    y = moved.rsample((4,))
    torch.testing.assert_close(moved.log_prob(y), their_moved.log_prob(y))
    if name != "StudentT":
        torch.testing.assert_close(moved.cdf(y), their_moved.cdf(y))
    assert moved.expand((6, *BATCH)).rsample().shape == (6, *BATCH)


@pytest.mark.parametrize("name", ["LogNormal", "Gumbel", "HalfCauchy"])
def test_kl(name: str) -> None:
    """Divergences agree with torch's, and within 6 standard errors with 6 means over samples.

    A fresh seed fails once in 80 million. The 200,000 log ratios have moments of every order. At 6
    standard errors the rest of their skewness makes that once in 60 million at worst.
    """
    p_given = parameters(name)
    q_given = [p.detach().flip(0).mul(1.3).requires_grad_() for p in parameters(name)]
    p, q = ours_of(name, "log_var", p_given), ours_of(name, "softplus", q_given)
    theirs = theirs_of(name, "log_var", p_given), theirs_of(name, "softplus", q_given)
    found = bd.kl_divergence(p, q)
    assert found.shape == BATCH
    if name == "HalfCauchy":
        expected = td.kl_divergence(*(td.Cauchy(0, d.scale) for d in theirs))
    else:
        expected = td.kl_divergence(*theirs)
    torch.testing.assert_close(found, expected)
    grads = [
        torch.autograd.grad(kl.square().sum(), (*p_given, *q_given)) for kl in (found, expected)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    if name != "HalfCauchy":  # with a distribution of torch's beside ours, too
        torch.testing.assert_close(bd.kl_divergence(p, theirs[1]), expected)
        torch.testing.assert_close(bd.kl_divergence(theirs[0], q), expected)
    n = 200_000
    x = p.sample((n,))
    ratio = (p.log_prob(x) - q.log_prob(x)).detach()
    assert bool(((ratio.mean(0) - found).abs() < 6 * ratio.std(0) / n**0.5).all())


def test_kl_of_half_cauchys_broadcasts() -> None:
    one = bd.HalfCauchy(1.0).expand((2, 3))
    other = bd.HalfCauchy(torch.tensor([1.0, 3.0, 1.0]))
    kl = bd.kl_divergence(one, other)
    torch.testing.assert_close(kl, torch.tensor([0.0, math.log(4 / 3), 0.0]).expand(2, 3))
    assert bd.kl_divergence(one, one).shape == (2, 3)


def test_a_kl_that_nobody_knows() -> None:
    """The error is torch's own, not one of a missing base distribution."""
    for p, q in ((bd.Gumbel(0.0, 1.0), bd.HalfCauchy(1.0)), (bd.StudentT(3.0), bd.StudentT(2.0))):
        with pytest.raises(NotImplementedError):
            bd.kl_divergence(p, q)


@pytest.mark.parametrize("name", ["LogNormal", "Gumbel", "HalfCauchy", "StudentT"])
def test_where_the_scale_underflows(name: str) -> None:
    """exp(-120) is 0 in float32. Its logarithm is not, nor are results made from the logarithm."""
    given = {"StudentT": [3.0, 0.0], "HalfCauchy": []}.get(name, [0.0])
    tiny = FAMILIES[name].from_log_scale(*given, torch.tensor(-120.0), validate_args=True)
    unit = FAMILIES[name](*given, 1.0)
    assert tiny.scale == 0
    assert tiny.entropy().item() == pytest.approx(unit.entropy().item() - 120, rel=1e-6)
    if name == "LogNormal":
        assert bd.kl_divergence(tiny, unit).item() == pytest.approx(119.5)
    if name == "HalfCauchy":
        assert bd.kl_divergence(tiny, unit).item() == pytest.approx(120 - math.log(4), rel=1e-6)


@of_each_parametrization
@pytest.mark.parametrize(
    "family", [*FAMILIES.values(), bd.Normal, bd.Laplace, bd.Logistic], ids=lambda f: f.__name__
)
def test_entropies_of_scales_that_vanish(family: type[bd.RawScale], parametrization: str) -> None:
    """The entropy is that of the unit scale plus log(scale), with a known derivative."""
    given = {"StudentT": [3.0, 0.0], "HalfCauchy": []}.get(family.__name__, [0.0])
    raw = {
        "softplus": [-1000.0, -200.0, -110.0, -95.0, -89.0, -20.0],
        "scale": [1e-44, 1e-40, 1e-38, 1e-30],
        "log_scale": [-1000.0, -200.0, -95.0],
        "log_var": [-1000.0, -180.0],
    }[parametrization]
    for dtype in (torch.float32, torch.float64):
        raw_scale = torch.tensor(raw, dtype=dtype, requires_grad=True)
        entropy = family(*given, raw_scale, parametrization=parametrization).entropy()  # type: ignore[call-arg]
        (grad,) = torch.autograd.grad(entropy.sum(), raw_scale)
        unit = family(*given, torch.ones((), dtype=dtype)).entropy()  # type: ignore[call-arg]
        exact = raw_scale.detach().double()
        log_scale = {"scale": exact.log(), "log_var": exact / 2}.get(parametrization, exact)
        slope = {"scale": 1 / exact, "log_var": torch.full_like(exact, 0.5)}
        torch.testing.assert_close(entropy, (unit + log_scale).to(dtype))
        wanted = slope.get(parametrization, torch.ones_like(exact)).to(dtype)
        torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_entropies_in_16_bits(dtype: torch.dtype) -> None:
    """softplus(-12) is 6e-6, where float16 has no digits."""
    raw = torch.tensor([-30.0, -16.0, -12.0, -9.5, -8.5, 0.0, 5.0], dtype=dtype)
    expected = bd.Normal.from_softplus(0.0, raw.double()).entropy()
    found = bd.Normal.from_softplus(0.0, raw).entropy()
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entropy_of_student_t_for_any_df(dtype: torch.dtype) -> None:
    """Entropy and derivative are right.

    Torch's differences of gamma functions have no digits at 1e8.
    """
    df = torch.tensor([0.01, 0.3, 1.0, 2.5, 19.0, 21.0, 300.0, 1e4, 1e8], dtype=dtype)
    df.requires_grad_()
    entropy = bd.StudentT(df).entropy()
    (slope,) = torch.autograd.grad(entropy.sum(), df)
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(60):

        def exact(v: Any) -> Any:
            step = mpmath.psi(0, (v + 1) / 2) - mpmath.psi(0, v / 2)
            return (v + 1) / 2 * step + mpmath.log(v) / 2 + mpmath.log(mpmath.beta(v / 2, 0.5))

        for i, v in enumerate(df.tolist()):
            # The error is relative to the sum's largest term, 1 / df for a small df.
            size = max(1.0, 1 / v)
            assert abs(entropy[i].item() - exact(mpmath.mpf(v))) < 8 * eps * size
            wanted = mpmath.diff(exact, mpmath.mpf(v))
            assert abs(slope[i].item() - wanted) < 16 * eps * max(size**2, float(abs(wanted)))


def test_cdf_of_half_cauchy_next_to_zero() -> None:
    """Next to 0, twice the Cauchy distribution function less 1 would be 0 in float32."""
    q = bd.HalfCauchy(torch.tensor(2.0))
    p = q.cdf(torch.tensor([0.0, 1e-9, 2.0]))
    torch.testing.assert_close(p, torch.tensor([0.0, 1e-9 / math.pi, 0.5]), atol=0, rtol=1e-6)
    torch.testing.assert_close(q.icdf(p), torch.tensor([0.0, 1e-9, 2.0]), atol=0, rtol=1e-6)
    assert bd.HalfCauchy(2.0, validate_args=False).cdf(torch.tensor(-1.0)) == 0


@of_each_family
def test_outside_the_support(name: str) -> None:
    """A value outside is an error if values are checked, and has density 0 if not."""
    given = [p.detach() for p in parameters(name)]
    x = torch.tensor(torch.nan if name in ("Gumbel", "StudentT") else -1.0, dtype=torch.float64)
    with pytest.raises(ValueError, match="support"):
        ours_of(name, "softplus", given, validate_args=True).log_prob(x)
    unchecked = ours_of(name, "softplus", given, validate_args=False).log_prob(x)
    assert bool((unchecked.isnan() if x.isnan() else unchecked.isneginf()).all())


def test_numbers_and_errors() -> None:
    assert bd.StudentT(3.0).batch_shape == bd.HalfCauchy(1.0).batch_shape == ()
    assert bd.StudentT(3.0, torch.zeros(2).double()).df.dtype == torch.float64
    assert bd.StudentT(3.0, torch.zeros(2, 1), torch.ones(3)).batch_shape == (2, 3)
    assert bd.HalfCauchy(1).log_prob(torch.zeros(4)).shape == (4,)
    with pytest.raises(ValueError, match="df"):
        bd.StudentT(torch.tensor(-1.0), validate_args=True)
    with pytest.raises(ValueError, match="scale"):
        bd.HalfCauchy(torch.tensor(-1.0), validate_args=True)
    with pytest.raises(TypeError, match=r"^scale: expected a finite number, got '1'"):
        bd.HalfCauchy("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^scale: expected the dtype of df, float32, got float64"):
        bd.StudentT(torch.ones(2), 0.0, torch.ones(2).double())
    with pytest.raises(ValueError, match=r"^raw_scale: .*\[2\].*\[3\]"):
        bd.LogNormal(torch.zeros(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"^parametrization: expected one of .*'sigma'"):
        bd.Gumbel(0.0, 1.0, parametrization="sigma")
    with pytest.raises(TypeError, match=r"^parameters: expected df, loc, raw_scale, got 2 of them"):
        bd.StudentT.from_softplus(torch.ones(2), torch.ones(2))
