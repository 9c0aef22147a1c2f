"""The posterior with diffusers' interface: beside plain torch, in every number of dimensions."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from bslfast.vae import DiagonalGaussianDistribution

SHAPES = [(3, 4), (3, 4, 5), (2, 4, 3, 2), (2, 4, 3, 2, 2)]


class Plain:
    """The same in plain torch."""

    def __init__(self, parameters: Tensor) -> None:
        self.mean, logvar = parameters.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.dims = tuple(range(1, parameters.dim()))

    def kl(self, other: Plain | None = None) -> Tensor:
        mean, logvar = (0.0, self.logvar * 0) if other is None else (other.mean, other.logvar)
        squares = (self.mean - mean).square() + self.logvar.exp()
        return 0.5 * (squares / logvar.exp() - 1 - self.logvar + logvar).sum(self.dims)

    def nll(self, x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
        squares = (x - self.mean).square() / self.logvar.exp()
        each = 0.5 * (math.log(2 * math.pi) + self.logvar + squares)
        return each.sum(self.dims if dims is None else dims)


def parameters(shape: tuple[int, ...], **options: Any) -> Tensor:
    """Means, and log variances inside the bounds, beyond them, and on them."""
    made = torch.randn(shape, dtype=torch.float64)
    logvar = made.chunk(2, dim=1)[1]
    logvar.view(shape[0], -1)[0, :2] = torch.tensor([-40.0, 25.0])
    logvar.view(shape[0], -1)[1, :2] = torch.tensor([-30.0, 20.0])
    return made.to(**options).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_values_and_gradients_are_those_of_plain_torch(shape: tuple[int, ...]) -> None:
    own, other = parameters(shape), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x = torch.randn(own.chunk(2, dim=1)[0].shape, dtype=torch.float64, requires_grad=True)
    fused, plain = DiagonalGaussianDistribution(own), Plain(own)
    torch.testing.assert_close(fused.logvar, plain.logvar, rtol=0, atol=0)
    torch.testing.assert_close(fused.std, (0.5 * plain.logvar).exp())
    torch.testing.assert_close(fused.var, plain.logvar.exp())
    assert torch.equal(fused.mode(), plain.mean)
    others = DiagonalGaussianDistribution(other), Plain(other)
    one = (0,) if len(shape) == 2 else (1, -1)
    for name, found, wanted in (
        ("kl", fused.kl(), plain.kl()),
        ("kl of two", fused.kl(others[0]), plain.kl(others[1])),
        ("nll", fused.nll(x), plain.nll(x)),
        ("nll of dims", fused.nll(x, one), plain.nll(x, one)),
        ("nll of all", fused.nll(x, range_ := tuple(range(len(shape)))), plain.nll(x, range_)),
        ("nll of wider", fused.nll(x[:1]), plain.nll(x[:1])),
    ):
        assert found.shape == wanted.shape, name
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-10)
        inputs = (own, other, x)
        weights = torch.randn_like(wanted)
        grads = [
            torch.autograd.grad((t * weights).sum(), inputs, retain_graph=True, allow_unused=True)
            for t in (found, wanted)
        ]
        for got, expected in zip(*grads, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("first", ["sample", "kl"])
@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_gradients_of_samples(shape: tuple[int, ...], first: str) -> None:
    """A sample is m + s e, by the noise that it says itself. The divergence is beside it."""
    own = parameters(shape)
    fused = DiagonalGaussianDistribution(own)
    kl = fused.kl() if first == "kl" else None
    z, again = (fused.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(z, again)
    alone = DiagonalGaussianDistribution(own.detach())
    assert torch.equal(alone.sample(torch.Generator().manual_seed(3)), z)
    kl = fused.kl() if kl is None else kl
    mean, raw = own.detach().chunk(2, dim=1)
    scale = (0.5 * raw.clamp(-30, 20)).exp()
    inside = (raw >= -30) & (raw <= 20)
    assert not inside.all()
    assert ((z - mean).abs() < 10 * scale).all()
    of_z, of_kl = torch.randn_like(z), torch.randn_like(kl)
    # The difference has no digits where the scale is exp(-15).
    of_logvar = torch.where(inside, of_z * 0.5 * (z.detach() - mean), 0.0)
    of_sample = torch.cat([of_z, of_logvar], dim=1)
    (of_divergence,) = torch.autograd.grad(Plain(own).kl(), own, of_kl)
    for results, grads, wanted in (
        ((z,), (of_z,), of_sample),
        ((kl,), (of_kl,), of_divergence),
        ((z, kl), (of_z, of_kl), of_sample + of_divergence),
    ):
        (found,) = torch.autograd.grad(results, own, grads, retain_graph=True)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_gradcheck() -> None:
    own, other = (torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)

    def every(p: Tensor, q: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        fused = DiagonalGaussianDistribution(p)
        z = fused.sample(torch.Generator().manual_seed(0))
        return z, fused.kl(), fused.kl(DiagonalGaussianDistribution(q)), fused.nll(x)

    torch.autograd.gradcheck(every, (own, other, x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    """What plain torch computes in float32 of the same parameters, also at the bounds."""
    own, other = (parameters((2, 4, 3, 2), dtype=dtype) for _ in range(2))
    fused = DiagonalGaussianDistribution(own)
    x = (torch.randn_like(fused.mean)).detach()
    z = fused.sample()
    assert z.dtype == dtype
    assert z.isfinite().all()
    wide = [t.detach().double().requires_grad_() for t in (own, other)]
    plain, others = Plain(wide[0]), (DiagonalGaussianDistribution(other), Plain(wide[1]))
    for found, wanted in (
        (fused.kl(), plain.kl()),
        (fused.kl(others[0]), plain.kl(others[1])),
        (fused.nll(x), plain.nll(x.double())),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    found, wanted = fused.kl().mean(), plain.kl().mean()
    (grad,) = torch.autograd.grad(found, own)
    (exact,) = torch.autograd.grad(wanted, wide[0])
    assert grad.dtype == dtype
    torch.testing.assert_close(grad, exact.to(dtype))


def test_samples_have_the_mean_and_the_deviation() -> None:
    own = torch.tensor([[0.5, -2.0, math.log(0.25), -50.0]]).expand(100_000, 4)
    z = DiagonalGaussianDistribution(own).sample()
    first, second = z.unbind(1)
    assert abs(first.mean() - 0.5) < 6 * 0.5 / len(z) ** 0.5
    assert abs(first.std() - 0.5) < 6 * 0.5 / (2 * len(z)) ** 0.5
    assert abs(((second + 2) / math.exp(-15)).std() - 1) < 0.3  # in steps of 2^-22, near -2
    scaled = (first - 0.5) / 0.5
    assert abs(scaled.pow(3).mean()) < 6 * (15 / len(z)) ** 0.5
    assert abs(scaled.pow(4).mean() - 3) < 6 * (96 / len(z)) ** 0.5


def test_the_generator_alone_decides() -> None:
    fused = DiagonalGaussianDistribution(torch.zeros(2, 8, 3, 3))
    state = torch.get_rng_state()
    first, second = (fused.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(fused.sample(generator), first)
    assert not torch.equal(fused.sample(generator), first)
    torch.manual_seed(7)
    third = fused.sample()
    assert not torch.equal(fused.sample(), third)
    torch.manual_seed(7)
    assert torch.equal(fused.sample(), third)


def test_deterministic() -> None:
    own = torch.randn(2, 4, 3, 3)
    fused = DiagonalGaussianDistribution(own, deterministic=True)
    z = fused.sample()
    assert torch.equal(z, fused.mean)
    z.zero_()
    assert not torch.equal(z, fused.mean)  # not a view of the parameters
    assert not fused.std.any()
    assert not fused.var.any()
    assert fused.std.shape == fused.mean.shape
    assert torch.equal(fused.kl(), torch.zeros(2))
    assert torch.equal(fused.nll(z), torch.zeros(2))
    assert torch.equal(fused.nll(z, (1,)), torch.zeros(2, 3, 3))
    # As diffusers has it, also from another one, whether or not that has a variance.
    other = DiagonalGaussianDistribution(torch.randn(2, 4, 3, 3), deterministic=True)
    assert torch.equal(fused.kl(other), torch.zeros(2))
    assert torch.equal(fused.kl(DiagonalGaussianDistribution(own)), torch.zeros(2))
    with pytest.raises(TypeError, match="other: expected the dtype"):
        fused.kl(DiagonalGaussianDistribution(own.double(), deterministic=True))
    half = DiagonalGaussianDistribution(own.half(), deterministic=True)
    assert half.kl().dtype == torch.float32


def test_values_without_a_graph_are_not_kept() -> None:
    own = torch.randn(2, 4, requires_grad=True)
    fused = DiagonalGaussianDistribution(own)
    with torch.no_grad():
        assert not fused.logvar.requires_grad
    assert torch.autograd.grad(fused.kl().sum(), own)[0].chunk(2, dim=1)[1].all()
    fused.sample()
    with torch.no_grad():
        assert not fused.kl().requires_grad


def test_a_batch_of_one_may_be_the_other() -> None:
    own, other = torch.randn(3, 4, 2, 2), torch.randn(1, 4, 2, 2)
    found = DiagonalGaussianDistribution(own).kl(DiagonalGaussianDistribution(other))
    torch.testing.assert_close(found, Plain(own).kl(Plain(other)))


def test_channels_last() -> None:
    own = torch.randn(2, 4, 3, 5)
    last = own.to(memory_format=torch.channels_last)
    found, wanted = DiagonalGaussianDistribution(last), DiagonalGaussianDistribution(own)
    torch.testing.assert_close(found.kl(), wanted.kl())
    torch.testing.assert_close(found.nll(own[:, :2]), wanted.nll(own[:, :2]))


def test_autocast() -> None:
    own = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)
    fused, other = DiagonalGaussianDistribution(own), DiagonalGaussianDistribution(own.flip(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fused.kl(), fused.kl(other), fused.nll(fused.sample())
    assert [t.shape for t in found] == [(2,)] * 3
    torch.testing.assert_close(found[:2], (fused.kl(), fused.kl(other)))


def test_compiles_without_breaks() -> None:
    @torch.compile(backend="eager", fullgraph=True)
    def every(p: Tensor, q: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        fused = DiagonalGaussianDistribution(p)
        other = DiagonalGaussianDistribution(q)
        return fused.sample() + fused.std, fused.var, fused.kl(), fused.kl(other), fused.nll(x)

    own, other = torch.randn(2, 4, 3, requires_grad=True), torch.randn(2, 4, 3)
    x = torch.randn(2, 2, 3)
    found, wanted = every(own, other, x), Plain(own)
    torch.testing.assert_close(found[2:], (wanted.kl(), wanted.kl(Plain(other)), wanted.nll(x)))


D = DiagonalGaussianDistribution
P = torch.zeros(2, 4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: D([1.0]), TypeError, "parameters: expected a floating-point tensor, got a list"),  # type: ignore[arg-type]
        (lambda: D(torch.zeros(2, 4).int()), TypeError, "parameters: expected a floating-point"),
        (
            lambda: D(torch.zeros(4)),
            ValueError,
            "parameters: expected shape [batch, 2 * channels, ...], got a tensor of shape (4,)",
        ),
        (lambda: D(torch.zeros(2, 3)), ValueError, "parameters: expected shape [batch, 2 *"),
        (lambda: D(P, 1), TypeError, "deterministic: expected a bool, got 1"),  # type: ignore[arg-type]
        (lambda: D(P).sample(3), TypeError, "generator: expected None or a torch.Generator"),  # type: ignore[arg-type]
        (lambda: D(P).kl(P), TypeError, "other: expected None or a DiagonalGaussianDistribution"),  # type: ignore[arg-type]
        (
            lambda: D(P).kl(D(P.double())),
            TypeError,
            "other: expected the dtype of parameters, float32, got float64",
        ),
        (
            lambda: D(P).kl(D(torch.zeros(2, 6, 3))),
            ValueError,
            "other: expected a shape that broadcasts with that of parameters, [2, 2, 3]",
        ),
        (
            lambda: D(P[:1]).kl(D(P)),
            ValueError,
            "other: expected a mean that broadcasts to shape [1, 2, 3], got [2, 2, 3]",
        ),
        (lambda: D(P).kl(D(P, True)), ValueError, "other: expected a distribution with a variance"),
        (lambda: D(P).nll(1.0), TypeError, "sample: expected a torch.Tensor, got float"),  # type: ignore[arg-type]
        (
            lambda: D(P).nll(P.double()),
            TypeError,
            "sample: expected the dtype of parameters, float32, got float64",
        ),
        (
            lambda: D(P).nll(torch.zeros(5)),
            ValueError,
            "sample: expected a shape that broadcasts with that of parameters, [2, 2, 3]",
        ),
        (lambda: D(P).nll(P[:, :2], 1), TypeError, "dims: expected a tuple of dimensions, got 1"),  # type: ignore[arg-type]
        (lambda: D(P).nll(P[:, :2], ()), TypeError, "dims: expected a tuple of dimensions"),
        (
            lambda: D(P).nll(P[:, :2], (1, -2)),
            ValueError,
            "dims: expected different dimensions below 3, got (1, -2)",
        ),
        (lambda: D(P).nll(P[:, :2], (3,)), ValueError, "dims: expected different dimensions below"),
        (lambda: D(P).nll(P[:, :2], (-4,)), ValueError, "dims: expected an integer of at least -3"),
    ],
)
def test_errors_name_the_argument(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize("name", ["mean", "logvar", "std", "var"])
def test_moments_cannot_be_set(name: str) -> None:
    """A sample would not know."""
    with pytest.raises(AttributeError):
        setattr(D(P), name, torch.zeros(2, 2, 3))


def test_samples_may_be_changed_in_place() -> None:
    own = torch.randn(2, 4, 3, requires_grad=True)
    fused = DiagonalGaussianDistribution(own)
    for _ in range(2):
        (grad,) = torch.autograd.grad(fused.sample().mul_(3).sum(), own, retain_graph=True)
        assert torch.equal(grad[:, :2], torch.full((2, 2, 3), 3.0))
