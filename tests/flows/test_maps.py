"""Maps: values with parameters for each feature, beside the ops that they call."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast import flows
from bslfast.flows import (
    Additive,
    Affine,
    Bernstein,
    DeepSigmoidal,
    Map,
    MixtureLogistic,
    Spline,
)

MAPS: dict[str, Callable[[], Map]] = {
    "Additive()": Additive,
    "Affine(scale_fn='tanh')": Affine,
    "Affine(scale_fn='exp')": lambda: Affine("exp"),
    "Bernstein(degree=16, bound=3.0)": Bernstein,
    "Bernstein(degree=1, bound=1.0)": lambda: Bernstein(1, 1),
    "DeepSigmoidal(components=8)": DeepSigmoidal,
    "MixtureLogistic(components=8)": MixtureLogistic,
    "MixtureLogistic(components=1)": lambda: MixtureLogistic(1),
}
MAPS |= {
    f"Spline(bins=5, bound=2.0, tails={tails!r}, min_bin_width=0.001, min_bin_height=0.001, "
    "min_derivative=0.001)": lambda tails=tails: Spline(5, 2, tails)  # type: ignore[misc]
    for tails in ("linear", "affine", "circular", None)
}
FEATURES = 3
each = pytest.mark.parametrize("text", MAPS)


def call_of(map: Map, x: Tensor, rows: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The op of a map, on parameters [..., features, size]."""
    if isinstance(map, Additive):
        shift = rows[..., 0]
        return (x - shift if inverse else x + shift), torch.zeros(x.shape[:-1], dtype=x.dtype)
    if isinstance(map, Affine):
        return BF.affine_coupling(x, *rows.unbind(-1), scale_fn=map.scale_fn, inverse=inverse)
    if isinstance(map, Bernstein):
        return BF.bernstein_transform(x, rows, bound=map.bound, inverse=inverse)
    if isinstance(map, Spline):
        parts = rows.tensor_split((map.bins, 2 * map.bins), dim=-1)
        return BF.rational_quadratic_spline(
            x, *parts, inverse=inverse, tails=map.tails, bound=map.bound
        )
    op = BF.mixture_logistic_transform
    if isinstance(map, DeepSigmoidal):
        op = BF.deep_sigmoidal_transform
    return op(x, *rows.chunk(3, dim=-1), inverse=inverse)


@each
def test_a_map_is_a_value(text: str) -> None:
    map, again = MAPS[text](), MAPS[text]()
    assert repr(map) == text
    assert eval(text, vars(flows)) == map
    assert map == again
    assert hash(map) == hash(again)
    assert len({MAPS[t]() for t in MAPS}) == len(MAPS)
    assert pickle.loads(pickle.dumps(map)) == copy.deepcopy(map) == map
    for field in dataclasses.fields(map):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(map, field.name, 1)


@each
def test_a_map_calls_its_op(text: str) -> None:
    """With each parameter where ``owners`` says that it is."""
    map = MAPS[text]()
    rows = torch.randn(4, FEATURES, map.size, dtype=torch.float64)
    owners = torch.tensor(map.owners(FEATURES))
    assert owners.bincount().tolist() == [map.size] * FEATURES
    parameters = torch.empty(4, FEATURES * map.size, dtype=torch.float64)
    for feature in range(FEATURES):
        parameters[:, owners == feature] = rows[:, feature]
    x = 1.9 * torch.rand(4, FEATURES, dtype=torch.float64) - 0.95
    for inverse in (False, True):
        found = map(x, parameters, inverse=inverse)
        torch.testing.assert_close(found, call_of(map, x, rows, inverse), rtol=1e-12, atol=1e-12)
    z, log_det = map(x, parameters)
    back, back_log_det = map(z, parameters, inverse=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-9)
    shared = map(x, parameters[0])  # broadcasts
    torch.testing.assert_close(shared, map(x, parameters[:1].expand_as(parameters)))


@each
def test_a_map_starts_near_the_identity(text: str) -> None:
    map = MAPS[text]()
    assert len(map.start) == map.size
    near = isinstance(map, MixtureLogistic | DeepSigmoidal) and map.components > 1
    start = torch.tensor(map.start, dtype=torch.float64)
    order = torch.tensor(map.owners(FEATURES)).argsort(stable=True)
    parameters = torch.empty(FEATURES * map.size, dtype=torch.float64)
    parameters[order] = start.repeat(FEATURES)
    x = torch.linspace(-0.99, 0.99, FEATURES, dtype=torch.float64)
    for inverse in (False, True):
        z, log_det = map(x, parameters, inverse=inverse)
        torch.testing.assert_close(z, x, rtol=0, atol=0.5 if near else 1e-12)
        torch.testing.assert_close(
            log_det, torch.zeros_like(log_det), rtol=0, atol=1.0 if near else 1e-12
        )


def test_domains() -> None:
    inside, outside = torch.tensor([2.0, -2.0]), torch.tensor([2.1, 0.0])
    for text in MAPS:
        map = MAPS[text]()
        bounded = isinstance(map, Spline) and map.tails in ("circular", None)
        assert map.domain.check(inside).all()
        assert map.domain.check(outside).all() != bounded


class OnlyDoubles(Map):
    """What a user might write."""

    @property
    def size(self) -> int:
        return 1

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0,)

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        scale = parameters.exp()
        return (x / scale, -parameters.sum(-1)) if inverse else (x * scale, parameters.sum(-1))


def test_a_map_of_ones_own() -> None:
    network = flows.Conditioner(1, 2, hidden=(4,))
    coupling = flows.Coupling(OnlyDoubles(), [True, False, True], network)
    with torch.no_grad():
        network.output_bias.copy_(torch.tensor([0.0, 1.0]))
    z, log_det = coupling(torch.ones(3))
    torch.testing.assert_close(z, torch.tensor([1.0, 1.0, 2.718281828]))
    torch.testing.assert_close(log_det, torch.tensor(1.0))


# --- extreme parameters ---------------------------------------------------------------------------

#: Small ones of each kind, and how many eps they may be off on the way there and back.
SMALL: dict[Map, float] = {
    **{Additive(): 2, Affine(): 2, Affine("exp"): 2, Affine("sigmoid"): 2},
    **{Spline(4, tails=tails): 8 for tails in ("linear", "affine", "circular", None)},
    **{MixtureLogistic(2): 4, DeepSigmoidal(2): 4, Bernstein(8): 32},
}


def test_maps_of_all_kinds_are_among_the_small_ones() -> None:
    kinds = {getattr(flows, name) for name in flows.__all__}
    assert {type(map) for map in SMALL} == {
        kind for kind in kinds if issubclass(kind, Map) and kind is not Map
    }


@pytest.mark.parametrize(
    ("dtype", "n"), [(torch.float32, 10**6), (torch.float64, 10**5)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("map", SMALL, ids=str)
def test_there_and_back_with_extreme_parameters(map: Map, dtype: torch.dtype, n: int) -> None:
    """No NaN, and a way back that is right up to rounding: docs/numerics.md says what that is.

    Parameters are normal numbers of standard deviations from 0.3 to 30, points of 0.001 to 1000.
    """
    spread = 0.3 * 100 ** torch.rand(n, 1)
    parameters = (spread * torch.randn(n, map.size)).to(dtype)
    x = (torch.randn(n, 1) * (14 * torch.rand(n, 1) - 7).exp()).to(dtype)
    most = torch.finfo(dtype).max
    if isinstance(map, Spline) and map.tails in ("circular", None):
        most = map.bound
        x = most * x.tanh()
    z, log_det = map(x, parameters)
    back, back_log_det = map(z, parameters, inverse=True)
    for result in (z, log_det, back, back_log_det):
        assert not result.isnan().any()
    assert log_det.isfinite().all()
    assert back_log_det.isfinite().all()
    # Only what a scale takes beyond the largest number.
    assert (z.isfinite() | (map == Affine("exp"))).all()
    eps = SMALL[map] * torch.finfo(dtype).eps
    # z lies between the images of two numbers that the rounding of x does not tell apart.
    reach = eps * (1 + back.clamp(-most, most).abs())
    low, high = ((back + side * reach).clamp(-most, most) for side in (-1, 1))
    slack = eps * (1 + z.abs())
    inside = (map(low, parameters)[0] - slack <= z) & (z <= map(high, parameters)[0] + slack)
    assert (inside | z.isinf()).all()
    # With ordinary parameters slopes change little in this range.
    ordinary = spread.squeeze(-1) <= 1
    bound = eps * (1 + x.abs() + (1 + z.abs()) * (-log_det).exp().unsqueeze(-1))
    assert ((back - x).abs() <= bound)[ordinary].all()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "scale_fn: expected one of", lambda: Affine("cube")),
        (TypeError, "scale_fn: expected one of", lambda: Affine(2)),
        (ValueError, "bins: expected an integer of at least 2", lambda: Spline(1)),
        (ValueError, "bins: expected at most 128", lambda: Spline(129, min_bin_width=1e-4)),
        (TypeError, "bins: expected an integer", lambda: Spline(2.5)),
        (ValueError, "bound: expected a finite number above 0", lambda: Spline(bound=0)),
        (ValueError, "tails: expected one of", lambda: Spline(tails="square")),
        (ValueError, "min_bin_width: ", lambda: Spline(min_bin_width=0.2)),
        (ValueError, "min_bin_height: ", lambda: Spline(min_bin_height=0.0)),
        (ValueError, "min_derivative: ", lambda: Spline(min_derivative=1.0)),
        (ValueError, "components: expected at most 64", lambda: MixtureLogistic(65)),
        (ValueError, "components: expected an integer of at least 1", lambda: DeepSigmoidal(0)),
        (ValueError, "degree: expected at most 63", lambda: Bernstein(64)),
        (ValueError, "bound: expected a finite", lambda: Bernstein(bound=-1.0)),
        (TypeError, "x: expected a floating-point", lambda: Affine()([1.0], torch.ones(2))),
        (ValueError, "x: expected a tensor of shape", lambda: Affine()(torch.tensor(1.0), None)),
        (
            ValueError,
            r"parameters: expected a tensor of shape \[..., 4\], the 2 parameters of Affine",
            lambda: Affine()(torch.ones(2), torch.ones(3)),
        ),
        (ValueError, "parameters: ", lambda: Spline()(torch.ones(2), torch.ones(()))),
        (ValueError, "parameters: .*got a list", lambda: Spline()(torch.ones(1), [1.0] * 23)),
        (
            ValueError,
            r"parameters: expected a leading shape that broadcasts with .* x, \[3\], got \[4\]",
            lambda: Additive()(torch.ones(3, 2), torch.ones(4, 2)),
        ),
        (
            TypeError,
            "parameters: expected the dtype of x, float32, got float64",
            lambda: Additive()(torch.ones(2), torch.ones(2).double()),
        ),
        (
            TypeError,
            "parameters: expected dtype float32.* got int64",
            lambda: Additive()(torch.ones(2), torch.ones(2).long()),
        ),
        (
            ValueError,
            r"parameters: expected a leading shape .*\[3\], got \[4\]",
            lambda: Spline(4)(torch.ones(3, 2), torch.ones(4, 22)),
        ),
        (
            ValueError,
            r"x: expected values in \[-3, 3\]",
            lambda: Spline(4, tails=None)(torch.tensor([9.0]), torch.ones(13)),
        ),
        (ValueError, "degree: expected an integer of at least 1", lambda: Bernstein(0)),
        (TypeError, "degree: expected an integer of at least 1", lambda: Bernstein(2.5)),
        (
            TypeError,
            "inverse: expected a bool",
            lambda: Additive()(torch.ones(1), torch.ones(1), inverse=1),
        ),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()
