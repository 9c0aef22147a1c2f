"""Noise alone: the noise of the sampling ops, by every route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast import reference

FUNCTIONS = {
    "normal": (BF.standard_normal, reference.standard_normal),
    "uniform": (BF.standard_uniform, reference.standard_uniform),
}
of_each = pytest.mark.parametrize(("function", "twin"), FUNCTIONS.values(), ids=FUNCTIONS)
Function = Callable[..., Tensor]


@of_each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (4097,)])
def test_agrees_with_the_reference(
    function: Function, twin: Function, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    made = function(shape, seed=-3, stream=2, dtype=dtype)
    expected = twin(shape, seed=-3, stream=2, dtype=dtype)
    assert made.shape == shape
    assert made.dtype == dtype
    units = 5 if dtype in (torch.float32, torch.float64) else 1
    torch.testing.assert_close(made, expected, rtol=units * torch.finfo(dtype).eps, atol=0)


def test_it_is_the_noise_of_normal_rsample() -> None:
    zero = torch.zeros(70, 31)
    sample = BF.normal_rsample(zero, zero, parametrization="log_scale", seed=4, stream=1)
    assert torch.equal(BF.standard_normal((70, 31), seed=4, stream=1), sample)


@of_each
def test_torch_seeds_govern(function: Function, twin: Function) -> None:
    torch.manual_seed(3)
    first, second = function((9,)), function((9,))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(function((9,)), first)


@of_each
def test_other_routes_give_the_same(function: Function, twin: Function) -> None:
    seed = torch.tensor(7)
    expected = function((5, 3), seed=seed)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(seed: Tensor) -> Tensor:
        return function((5, 3), seed=seed)

    assert torch.equal(compiled(seed), expected)
    by_vmap = torch.func.vmap(lambda s: function((5, 3), seed=s))(torch.tensor([7, 8]))
    assert torch.equal(by_vmap[0], expected)
    assert torch.equal(by_vmap[1], function((5, 3), seed=8))
    assert function((5, 3), seed=None, device="meta").shape == (5, 3)
    with BF.use_reference():
        torch.testing.assert_close(function((5, 3), seed=seed), expected)


@of_each
@pytest.mark.parametrize(
    ("arguments", "exception", "match"),
    [
        (((2.0,), {}), TypeError, r"^shape: expected a tuple of ints, got \(2\.0,\)"),
        (((-1,), {}), ValueError, r"^shape: expected sizes >= 0, got \(-1,\)"),
        (((2,), {"dtype": torch.int64}), TypeError, r"^dtype: expected .* got torch\.int64"),
        (((2,), {"seed": 0.5}), TypeError, r"^seed: expected .* got 0\.5"),
        (((2,), {"stream": -1}), ValueError, r"^stream: expected .* got -1"),
    ],
)
def test_refuses(
    function: Function,
    twin: Function,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    exception: type[Exception],
    match: str,
) -> None:
    shape, options = arguments
    with pytest.raises(exception, match=match):
        function(shape, **options)


def test_another_default_device() -> None:
    expected = BF.standard_uniform((3,), seed=1)
    with torch.device("meta"):
        assert torch.equal(BF.standard_uniform((3,), seed=1, device="cpu"), expected)
