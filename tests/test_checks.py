"""The texts of errors about numbers: values beside a bound, seeds, values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import bslfast
import bslfast.functional as BF
from bslfast import _checks, bnn, data, flows, vae
from bslfast.training import fit

INSIDE = torch.linspace(-0.9, 0.9, 6).view(3, 2)


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (0.5, (0, 1), "0.5"),
        (0.0, (0, 1), "0"),
        (1.0, (0, 1), "1"),
        (1 + 2**-23, (0, 1), "1.0000001"),
        (1 + 2**-52, (0, 1), "1.0000000000000002"),
        (1 - 2**-53, (0, 1), "0.9999999999999999"),
        (-1e-45, (0, 1), "-1e-45"),
        (math.pi + 1e-6, (-math.pi, math.pi), "3.141594"),
        (math.pi - 1e-8, (-math.pi, math.pi), "3.1415926"),
        (1234567.0, (0,), "1.23457e+06"),
        (math.inf, (0, 1), "inf"),
        (math.nan, (0, 1), "nan"),
    ],
)
def test_a_value_is_shown_by_the_digits_that_tell_it_from_a_bound(
    value: float, bounds: tuple[float, ...], text: str
) -> None:
    assert _checks.shown(value, *bounds) == text


def test_values_just_outside_a_range_are_shown_as_such() -> None:
    model = vae.VAE(vae.mlp_encoder((4,), 2), vae.mlp_decoder(2, (4,)))
    x = torch.full((3, 4), 0.5)
    x[0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(
        ValueError, match=r"^x: expected values in \[0, 1\] .*got 0.5 to 1.0000001$"
    ):
        model(x)
    bins = torch.zeros(1, 4)
    edge = torch.nextafter(torch.tensor([3.0]), torch.tensor(4.0))
    with pytest.raises(ValueError, match=r"^x: expected values in \[-3, 3\], .* got 3.0000002$"):
        BF.rational_quadratic_spline(edge, bins, bins, torch.zeros(1, 5), bound=3.0, tails=None)


def moons(seed: Any) -> Any:
    pytest.importorskip("sklearn")
    return data.load_moons(4, seed=seed)


def steps(seed: Any) -> Any:
    pytest.importorskip("matplotlib")
    from bslfast.plots import densities

    return densities.steps(flows.RealNVP(2), INSIDE, seed=seed)


# Each takes a seed; the first group passes it to torch's generators, the second to ours.
TORCH_SEEDS: dict[str, Callable[[Any], Any]] = {
    "fit": lambda seed: fit(
        bnn.BayesianMLP(2, (), 1), (INSIDE, INSIDE[:, :1]), epochs=1, seed=seed
    ),
    "predict": lambda seed: bslfast.predict(bnn.BayesianMLP(2, (), 1), INSIDE, 2, seed=seed),
    "split": lambda seed: data.split(INSIDE, INSIDE, (0.3, 0.4, 0.3), seed=seed),
    "moons": moons,
    "Permutation": lambda seed: flows.Permutation.random(2, seed=seed),
    "PLULinear": lambda seed: flows.PLULinear(2, seed=seed),
    "plots": steps,
}
SEEDS: dict[str, Callable[[Any], Any]] = {
    "op": lambda seed: BF.standard_normal((3,), seed=seed),
    "layer": lambda seed: bslfast.nn.BayesLinear(2, 1)(INSIDE, seed=seed),
    "one_draw": lambda seed: bslfast.nn.one_draw(bnn.BayesianMLP(2, (), 1), seed=seed).__enter__(),
    "vae": lambda seed: vae.VAE(
        vae.mlp_encoder((2,), 2), vae.mlp_decoder(2, (2,)), likelihood="normal"
    ).elbo(INSIDE, seed=seed),
    "flow": lambda seed: flows.RealNVP(2).sample(3, seed=seed),
}


@pytest.mark.parametrize("call", [*TORCH_SEEDS.values(), *SEEDS.values()], ids=TORCH_SEEDS | SEEDS)
def test_a_seed_that_is_none_is_named(call: Callable[[Any], Any]) -> None:
    call(5)
    for seed in (2**64, 2**70, -(2**63) - 1):
        with pytest.raises(ValueError, match=rf"^seed: expected .* got {seed}"):
            call(seed)
    for seed in (1.0, True, "1", math.nan):
        with pytest.raises(TypeError, match=r"^seed: expected .* got"):
            call(seed)


@pytest.mark.parametrize("call", TORCH_SEEDS.values(), ids=TORCH_SEEDS)
def test_seeds_of_torchs_generators_are_not_negative(call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"^seed: expected an integer of at least 0, got -1"):
        call(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_finite(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 2, dtype=dtype)
    _checks.finite("x", x.requires_grad_())
    x = x.detach().index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(math.inf).to(dtype))
    with pytest.raises(
        ValueError, match=r"^x: expected finite values, got infinity: 1 of 6 .*1\)$"
    ):
        _checks.finite("x", x)
    with pytest.raises(ValueError, match=r"^x: expected finite values, got NaN: 6 of 6"):
        _checks.finite("x", torch.full_like(x, math.nan))
    _checks.finite("x", torch.zeros(0, dtype=dtype))
    _checks.finite("x", torch.ones(2, dtype=torch.int64))


def test_numbers_beyond_floats_are_named() -> None:
    with pytest.raises(ValueError, match=r"^prior_scale: expected a finite number above 0, got 10"):
        bslfast.nn.BayesLinear(1, 1, prior_scale=10**400)
