"""Errors of flows name the argument, what was expected and what came, whatever is called."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bslfast.flows import (
    IAF,
    MADE,
    MAF,
    NICE,
    NSF,
    PLU,
    ActNorm,
    Affine,
    AffineCoupling,
    Autoregressive,
    Base,
    BatchNorm,
    Bernstein,
    Composite,
    Conditioner,
    ConvConditioner,
    Coupling,
    Flow,
    FlowDistribution,
    Glow,
    Householder,
    Images,
    Inverse,
    InvertibleConv1x1,
    Leading,
    Log,
    MixtureLogistic,
    NormalBase,
    NormalMixtureBase,
    Permutation,
    PerPixel,
    Planar,
    PLULinear,
    Radial,
    RealNVP,
    Rescale,
    Reverse,
    Spline,
    SplineCoupling,
    Squeeze,
    Standardize,
    StudentTBase,
    Sylvester,
    Tanh,
    Transform,
    UniformBase,
    VonMisesBase,
)

FLOW = NSF(2, hidden=(4,), transforms=2)
CONDITIONAL = RealNVP(2, context=3, hidden=(4,), transforms=2)
IMAGES = torch.ones(2, 4, 2, 2)
GLOW = Glow((1, 4, 4), context=2, scales=1, steps=1, hidden=(3,)).eval()
#: Of 2 features and with numbers of their own.
TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "AffineCoupling": lambda: AffineCoupling(2),
    "Coupling of all": lambda: Coupling(Affine(), [True, True], Conditioner(0, 4)),
    "circular": lambda: SplineCoupling(2, tails="circular"),
    "Autoregressive": lambda: Autoregressive(Affine(), MADE(2, Affine())),
    "Composite": lambda: Composite([Reverse(2), AffineCoupling(2)]),
    "Inverse": lambda: Inverse(AffineCoupling(2)),
    "Leading": lambda: Leading(AffineCoupling(1), 2),
    "Standardize": lambda: Standardize(2),
    "ActNorm": lambda: ActNorm(2),
    "BatchNorm": lambda: BatchNorm(2).eval(),
    "Planar": lambda: Planar(2),
    "Radial": lambda: Radial(2),
    "Sylvester": lambda: Sylvester(2),
    "Householder": lambda: Householder(2),
    "PLULinear": lambda: PLULinear(2),
}
BASES: dict[str, Callable[[], Base]] = {
    "NormalBase": lambda: NormalBase(2),
    "NormalMixtureBase": lambda: NormalMixtureBase(2, 3),
    "StudentTBase": lambda: StudentTBase(2),
    "VonMisesBase": lambda: VonMisesBase(2),
}


class Called(nn.Module):
    """A conditioner of a user's own."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def coupled(function: Callable[[Tensor], Any], map: Any = None) -> tuple[Tensor, Tensor]:
    coupling = Coupling(map or Affine(), [True, False], Called(function))
    return coupling(torch.ones(3, 2))  # type: ignore[no-any-return]


# --- dtypes, devices and layouts ------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_numbers_of_another_dtype_or_device(kind: str) -> None:
    """Both ways; no parameter or state has changed after."""
    transform = TRANSFORMS[kind]()
    before = {key: value.clone() for key, value in transform.state_dict().items()}
    for name, call in (("x", transform), ("z", transform.inverse)):
        for wrong in (torch.float64, torch.bfloat16):
            with pytest.raises(TypeError, match=rf"^{name}: expected torch.float32, the dtype of"):
                call(torch.ones(3, 2, dtype=wrong))
        with pytest.raises(ValueError, match=rf"^{name}: expected a tensor on cpu, .* on meta"):
            call(torch.ones(3, 2, device="meta"))
        with pytest.raises(TypeError, match=rf"^{name}: expected a dense tensor, .* sparse_coo"):
            call(torch.ones(3, 2).to_sparse())
        with pytest.raises(TypeError, match=rf"^{name}: expected a floating-point tensor"):
            call(torch.ones(3, 2, dtype=torch.complex64))
        with pytest.raises(ValueError, match=rf"^{name}: expected a tensor of shape \[..., 2\]"):
            call(torch.ones(3, 1))
    for key, value in transform.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_autocast_takes_its_own_dtype(kind: str) -> None:
    """A step before, run in 16 bits, may have made x."""
    transform = TRANSFORMS[kind]().eval()
    if kind in ("Sylvester", "Householder"):
        return  # torch solves no triangular system in 16 bits
    with torch.autocast("cpu", torch.bfloat16):
        for x in (torch.rand(3, 2), torch.rand(3, 2).bfloat16()):
            z, log_det = transform(x)
            assert z.isfinite().all()
            assert log_det.isfinite().all()


def test_convolutions_are_of_one_dtype() -> None:
    conv = InvertibleConv1x1(3)
    for name, call in (("x", conv), ("z", conv.inverse)):
        with pytest.raises(TypeError, match=rf"^{name}: expected torch.float32, the dtype of"):
            call(torch.ones(3, 4, 4).double())


@pytest.mark.parametrize("kind", BASES)
def test_bases_are_of_one_dtype_and_size(kind: str) -> None:
    base = BASES[kind]()
    with pytest.raises(TypeError, match=r"^z: expected torch.float32, the dtype of the \w+Base"):
        base.log_prob(torch.zeros(3, 2).double())
    with pytest.raises(ValueError, match=r"^z: expected a tensor on cpu, the device of"):
        base.log_prob(torch.zeros(3, 2, device="meta"))
    for wrong in (torch.zeros(3, 1), torch.zeros(3, 5), torch.zeros(())):
        with pytest.raises(ValueError, match=r"^z: expected a tensor of shape \[..., 2\]"):
            base.log_prob(wrong)
    with pytest.raises(TypeError, match=r"^z: expected a floating-point tensor"):
        base.log_prob([0.0, 0.0])  # type: ignore[arg-type]


def test_vectors_mapped_over_are_taken() -> None:
    """What torch.func wraps has the dtype and the shape that the checks ask for."""
    x = torch.rand(5, 2)
    for make in TRANSFORMS.values():
        transform = make().eval()
        z, log_det = torch.func.vmap(transform)(x)
        torch.testing.assert_close((z, log_det), transform(x))
        torch.func.grad(lambda x, t=transform: t(x)[1])(x[0])


# --- constructors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        *(RealNVP, NSF, PLULinear, PLU, Householder, Sylvester, Planar, Radial, ActNorm),
        *(BatchNorm, Standardize, NormalBase, NormalMixtureBase, StudentTBase, VonMisesBase),
        lambda size, **options: Conditioner(size, size, **options),
        lambda size, **options: Conditioner(0, size, **options),
        lambda size, **options: ConvConditioner(size, size, **options),
        lambda size, **options: MADE(size, Affine(), **options),
        lambda size, **options: InvertibleConv1x1(size, **options),
        lambda size, **options: Glow((1, 4, 4), scales=1, steps=1, **options),
    ],
)
def test_what_parameters_are_made_of(make: Callable[..., nn.Module]) -> None:
    for dtype in (torch.int64, torch.complex64, "float32", 32):
        with pytest.raises(TypeError, match=r"^dtype: expected torch.float32, .* got"):
            make(2, dtype=dtype)
    for device in ("gpu", 1.5):
        with pytest.raises(ValueError, match=r"^device: expected a name such as .* got"):
            make(2, device=device)
    made = make(2, dtype=torch.float64, device=torch.device("cpu"))
    assert {p.dtype for p in (*made.parameters(), *made.buffers())} <= {
        torch.float64,
        torch.int64,
        torch.bool,
        torch.float32 if isinstance(made, Flow) else torch.float64,  # what says where a flow is
    }


@pytest.mark.parametrize("bound", [1e-30, 1e15])
@pytest.mark.parametrize("make", [Bernstein, Spline])
def test_bounds_that_are_taken_give_numbers(make: Callable[..., Any], bound: float) -> None:
    torch.manual_seed(0)
    map = make(bound=bound)
    noise = 0.1 * torch.randn(50, map.size)
    if make is Bernstein:
        noise[:, 0] *= bound  # a shift
    parameters = (torch.tensor(map.start) + noise).requires_grad_()
    x = (bound * torch.linspace(-0.9, 0.9, 50).unsqueeze(-1)).requires_grad_()
    z, log_det = map(x, parameters)
    back, back_log_det = map(z.detach(), parameters, inverse=True)
    for found in (z, log_det, back, back_log_det):
        assert found.isfinite().all()
    for grad in torch.autograd.grad(log_det.sum() + (z / bound).sum(), [x, parameters]):
        assert grad.isfinite().all()
    assert ((back - x).abs() <= 1e-3 * bound).all()


@pytest.mark.parametrize("df", [1e-30, 1e30])
def test_degrees_of_freedom_that_are_taken_give_numbers(df: float) -> None:
    base = StudentTBase(2, df=df)
    log_prob = base.log_prob(torch.randn(5, 2))
    assert log_prob.isfinite().all()
    for grad in torch.autograd.grad(log_prob.sum(), list(base.parameters())):
        assert grad.isfinite().all()


def test_the_widest_uniform_base_has_samples() -> None:
    base = UniformBase(2, -1.7e38, 1.7e38)
    sample = base.rsample(torch.zeros(100, 2), None, 0)
    assert sample.isfinite().all()
    assert base.log_prob(sample).isfinite().all()


# --- the argument that is named -------------------------------------------------------------------

X = torch.ones(3, 2)
CALLS: list[tuple[str, Callable[[], Any]]] = [
    ("bound", lambda: NSF(2, bound=1e300)),
    ("bound", lambda: Spline(bound=1e16)),
    ("bound", lambda: Bernstein(bound=5e-324)),
    ("bound", lambda: Bernstein(bound=1e308)),
    ("df", lambda: StudentTBase(2, df=1e300)),
    ("df", lambda: StudentTBase(2, df=1e-300)),
    ("low", lambda: UniformBase(2, -1e308, 1e308)),
    ("high", lambda: UniformBase(2, -3e38, 3e38)),
    ("z", lambda: UniformBase(2).log_prob(torch.zeros(3, 5))),
    ("z", lambda: UniformBase(2).log_prob([0.0, 0.0])),  # type: ignore[arg-type]
    ("context", lambda: NormalBase(2, context=3).log_prob(X)),
    ("context", lambda: NormalBase(2, context=3).log_prob(X, torch.ones(3, 3).double())),
    ("context", lambda: NormalBase(2).log_prob(X, torch.ones(3, 3))),
    ("transforms", lambda: Composite(None)),  # type: ignore[arg-type]
    ("transforms", lambda: Composite(5)),  # type: ignore[arg-type]
    ("transforms", lambda: Composite(Reverse(2))),  # type: ignore[arg-type]
    ("transforms", lambda: Images((1, 4, 4), None)),  # type: ignore[arg-type]
    ("transforms", lambda: Images((1, 4, 4), 5)),  # type: ignore[arg-type]
    ("transforms", lambda: Images((1, 4, 4), [3])),  # type: ignore[list-item]
    ("transforms", lambda: Images((1, 4, 4), Squeeze(1))),  # type: ignore[arg-type]
    ("size", lambda: PLU(0)),
    ("size", lambda: PLU("a")),  # type: ignore[arg-type]
    ("features", lambda: PLULinear(0)),
    ("order", lambda: Permutation([])),
    ("device", lambda: Permutation([0, 1], device="gpu")),
    ("x", lambda: Standardize.from_data(torch.randn(3, 0))),
    ("x", lambda: Inverse(Tanh(2))(torch.ones(3))),
    # conditioners
    ("x", lambda: Conditioner(3, 4)(X)),
    ("x", lambda: Conditioner(3, 4)([1.0])),
    ("x", lambda: Conditioner(3, 4)(torch.ones(5, 3).double())),
    ("x", lambda: Conditioner(3, 4)(torch.ones(5, 3, device="meta"))),
    ("context", lambda: Conditioner(3, 4)(torch.ones(5, 3), torch.ones(5, 3))),
    ("context", lambda: Conditioner(0, 4)(torch.ones(5, 0), torch.ones(5, 3))),
    ("context", lambda: Conditioner(3, 4, context=2)(torch.ones(5, 3))),
    ("context", lambda: Conditioner(3, 4, context=2)(torch.ones(5, 3), torch.ones(5, 1))),
    ("context", lambda: Conditioner(3, 4, context=2)(torch.ones(5, 3), torch.ones(4, 2))),
    ("context", lambda: Conditioner(3, 4, context=2)(torch.ones(5, 3), torch.ones(5, 2).double())),
    ("context", lambda: Conditioner(3, 4, context=2)(torch.ones(5, 3), [1.0])),
    ("context", lambda: Conditioner(0, 4, context=2)(torch.ones(5, 0))),
    ("context", lambda: Conditioner(0, 4, context=2)(torch.ones(5, 0), torch.ones(5, 3))),
    ("context", lambda: Conditioner(0, 4, context=2)(torch.ones(5, 0), torch.ones(5, 2).double())),
    ("x", lambda: MADE(2, Affine())(torch.ones(3, 3))),
    ("x", lambda: MADE(2, Affine())(X.double())),
    ("context", lambda: MADE(2, Affine(), context=2)(X)),
    ("x", lambda: ConvConditioner(2, 6, hidden=(4,))(torch.ones(4, 4, 3))),
    ("x", lambda: ConvConditioner(2, 6, hidden=(4,))(torch.ones(2))),
    ("x", lambda: ConvConditioner(2, 6, hidden=(4,))(torch.ones(4, 4, 2).double())),
    ("x", lambda: ConvConditioner(2, 6, hidden=(4,))([1.0])),
    ("context", lambda: ConvConditioner(2, 6)(torch.ones(4, 4, 2), torch.ones(1, 1, 3))),
    ("context", lambda: ConvConditioner(2, 6, context=3)(torch.ones(4, 4, 2))),
    ("context", lambda: ConvConditioner(2, 6, context=3)(torch.ones(4, 4, 2), torch.ones(1, 1, 2))),
    ("context", lambda: ConvConditioner(2, 6, context=3)(torch.ones(4, 4, 2), torch.ones(3, 1, 3))),
    (
        "context",
        lambda: ConvConditioner(2, 6, context=3)(torch.ones(4, 4, 2), torch.ones(1, 1, 3).double()),
    ),
    ("context", lambda: ConvConditioner(2, 6, context=-1)),
    # maps of images
    *(
        ("context", lambda kind=kind, method=method: getattr(kind(), method)(IMAGES, torch.ones(3)))
        for kind in (
            lambda: InvertibleConv1x1(4),
            lambda: PerPixel(ActNorm(4)),
            lambda: PerPixel(AffineCoupling(4, context=2)),
        )
        for method in ("forward", "inverse")
    ),
    ("context", lambda: Squeeze(4)(IMAGES, torch.ones(3))),
    ("context", lambda: Squeeze(1).inverse(IMAGES, torch.ones(3))),
    *(
        ("context", lambda given=given: PerPixel(AffineCoupling(4, context=1))(IMAGES, given))
        for given in (None, torch.tensor(1.0), [1.0], "x", torch.ones(3, 1))
    ),
    ("low", lambda: Rescale(2, "a")),  # type: ignore[arg-type]
    ("high", lambda: Rescale(2, 1.0, 1.0)),
    ("high", lambda: Rescale(2, -1e308, 1e308)),
    # ready-made flows
    *(
        (name, lambda kind=kind, name=name, given=given: kind(3, **{name: given}))
        for kind in (RealNVP, NICE, NSF, MAF, IAF)
        for name, given in (
            ("permutation", "x"),
            ("permutation", None),
            ("permutation", lambda index: Reverse(2)),
            ("permutation", lambda index: index),
            ("support", "negative"),
            ("support", 3),
            ("support", (1.0,)),
            ("support", (1.0, 0.0)),
            ("support", (0.0, float("inf"))),
        )
    ),
    # transforms whose parameters depend on a context
    *(
        ("context", lambda kind=kind, given=given: kind(2, context=3)(X, *given))
        for kind in (Planar, Radial, Sylvester)
        for given in (
            (),
            (torch.ones(3, 2),),
            (torch.ones(4, 3),),
            (torch.ones(3, 3).double(),),
            (torch.ones(3, 3, device="meta"),),
        )
    ),
    *(("context", lambda kind=kind: kind(2, context=-1)) for kind in (Planar, Radial, Sylvester)),
    *(("hidden", lambda kind=kind: kind(2, hidden=(0,))) for kind in (Planar, Radial, Sylvester)),
    ("activation", lambda: Planar(2, context=1, activation="cosine")),
    ("context", lambda: GLOW.log_prob(torch.ones(3, 16))),
    ("context", lambda: GLOW.log_prob(torch.ones(3, 16), torch.ones(3, 1))),
    ("context", lambda: GLOW.log_prob(torch.ones(3, 16), torch.ones(4, 2))),
    ("context", lambda: GLOW.log_prob(torch.ones(3, 16), torch.ones(3, 2).double())),
    ("context", lambda: GLOW.transform.inverse(torch.ones(3, 16))),
    # what conditioners return
    ("conditioner", lambda: coupled(lambda x: None)),
    ("conditioner", lambda: coupled(lambda x: torch.ones(3, 2).long())),
    ("conditioner", lambda: coupled(lambda x: torch.ones(3, 2).double())),
    ("conditioner", lambda: coupled(lambda x: torch.ones(7, 2))),
    ("conditioner", lambda: coupled(lambda x: torch.ones(2, 3, 2))),
    ("conditioner", lambda: coupled(lambda x: torch.ones(7, 11), Spline(4))),
    ("conditioner", lambda: coupled(lambda x: torch.ones(7, 24), MixtureLogistic(8))),
    ("conditioner", lambda: Coupling(Affine(), [True, False], MADE(2, Affine()))),
    # maps
    ("parameters", lambda: Affine()(torch.ones(3), torch.ones(6).double())),
    ("parameters", lambda: Affine()(X, torch.ones(4, 4))),
    ("parameters", lambda: Affine()(X, torch.ones(3, 4).to_sparse())),
    ("parameters", lambda: Spline(4)(X.double(), torch.ones(3, 22))),
    ("parameters", lambda: Spline(4)(X, torch.ones(3, 22).half())),
    ("parameters", lambda: MixtureLogistic(2)(X, torch.ones(3, 12, dtype=torch.int64))),
    ("parameters", lambda: Bernstein(3)(X, torch.ones(3, 8, device="meta"))),
    ("x", lambda: Spline(4)(X.to_sparse(), torch.ones(3, 22))),
    # flows and their distributions
    ("x", lambda: FLOW.log_prob(X.to_sparse())),
    ("x", lambda: FLOW.log_prob(X.to("meta"))),
    ("x", lambda: Flow(Log(2)).log_prob(X.to_sparse())),
    ("context", lambda: CONDITIONAL.log_prob(X, torch.ones(3, 3, device="meta"))),
    ("context", lambda: CONDITIONAL.sample(1, torch.ones(3, 3, device="meta"))),
    ("context", lambda: CONDITIONAL.transform(X, torch.ones(3, 3).double())),
    ("value", lambda: FLOW.distribution().log_prob(torch.ones(3))),
    ("value", lambda: FlowDistribution(FLOW, validate_args=False).log_prob([1.0])),  # type: ignore[arg-type]
    ("value", lambda: CONDITIONAL.distribution(torch.ones(4, 3)).log_prob(torch.ones(5, 2))),
    (
        "value",
        lambda: FlowDistribution(CONDITIONAL, torch.ones(4, 3), False).log_prob(torch.ones(5, 2)),
    ),
    ("batch_shape", lambda: CONDITIONAL.distribution(torch.ones(4, 3)).expand((3,))),
    ("batch_shape", lambda: CONDITIONAL.distribution(torch.ones(4, 3)).expand(())),
    ("batch_shape", lambda: FLOW.distribution().expand("a")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("index", range(len(CALLS)), ids=lambda index: f"{index}-{CALLS[index][0]}")
def test_the_argument_is_named(index: int) -> None:
    name, call = CALLS[index]
    with pytest.raises((TypeError, ValueError)) as found:
        call()
    assert re.match(rf"{name}: expected .*got", str(found.value)), str(found.value)
    assert str(found.value).count(": expected") == 1


def test_errors_of_ones_own_conditioner_stay() -> None:
    """Nothing that the arguments explain is made of them."""

    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match=r"^my own$"):
        coupled(fail)


def test_parameters_that_broadcast_are_taken() -> None:
    """One row for all, or none."""
    for shape in ((2,), (1, 2), (3, 2)):
        parameters = torch.zeros(shape)
        assert coupled(lambda x, p=parameters: p)[0].shape == (3, 2)  # type: ignore[misc]
    transform = CONDITIONAL.transform
    z, log_det = transform(torch.ones(3, 2), torch.ones(5, 1, 3))
    assert z.shape == (5, 3, 2)
    assert log_det.shape == (5, 3)
