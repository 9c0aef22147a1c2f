"""normal_rsample_kl_many gives the results of normal_rsample_kl for each tensor, in one node."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast import reference
from bslfast.functional.normal import PARAMETRIZATIONS

SHAPES = ((4, 3), (4,), (0, 2), (), (3, 70))
OPTIONS: dict[str, Any] = {
    "prior_loc": (0.0, 0.1, 0.2, 0.3, 0.4),
    "prior_scale": 0.7,
    "seed": 5,
    "stream": 11,
}


def arguments(
    dtype: torch.dtype = torch.float64, parametrization: str = "softplus"
) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(1)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    loc, raw = [normal(s) for s in SHAPES], [normal(s) for s in SHAPES]
    if parametrization == "scale":
        raw = [r.abs() + 0.1 for r in raw]
    return [t.requires_grad_() for t in loc], [t.requires_grad_() for t in raw]


def _flat(results: tuple[tuple[Tensor, ...], Tensor]) -> list[Tensor]:
    return [*results[0], results[1]]


def _total(results: tuple[tuple[Tensor, ...], Tensor]) -> Tensor:
    samples, kl = results
    return sum(((i + 1) * s.square().sum() for i, s in enumerate(samples)), 0.3 * kl)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_values_and_gradients_are_those_of_the_reference(parametrization: str) -> None:
    loc, raw = arguments(parametrization=parametrization)
    options = {**OPTIONS, "parametrization": parametrization}
    got = _flat(BF.normal_rsample_kl_many(loc, raw, **options))
    expected = _flat(reference.normal_rsample_kl_many(loc, raw, **options))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    grads = [torch.randn_like(o) for o in expected]
    torch.testing.assert_close(
        torch.autograd.grad(got, [*loc, *raw], grads),
        torch.autograd.grad(expected, [*loc, *raw], grads),
        rtol=1e-11,
        atol=1e-11,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_tensor_is_drawn_as_if_alone(dtype: torch.dtype) -> None:
    loc, raw = arguments(dtype)
    samples, kl = BF.normal_rsample_kl_many(loc, raw, **OPTIONS)
    alone = [
        BF.normal_rsample_kl(
            *(loc[i], raw[i]),
            **{**OPTIONS, "prior_loc": OPTIONS["prior_loc"][i], "stream": 11 + i},
        )
        for i in range(len(loc))
    ]
    torch.testing.assert_close(samples, tuple(s for s, _ in alone), rtol=0, atol=0)
    torch.testing.assert_close(kl, sum(k for _, k in alone))


def test_gradcheck_and_second_derivatives() -> None:
    loc, raw = arguments()
    n = len(loc)

    def function(*tensors: Tensor) -> Any:
        return tuple(_flat(BF.normal_rsample_kl_many(tensors[:n], tensors[n:], **OPTIONS)))

    assert torch.autograd.gradcheck(function, (*loc, *raw))
    assert torch.autograd.gradgradcheck(function, (*loc, *raw))


@pytest.mark.parametrize("create_graph", [False, True])
def test_inputs_made_from_each_other_or_the_same(create_graph: bool) -> None:
    base = torch.randn(3, dtype=torch.float64, requires_grad=True)
    loc = base * 1
    raw = loc * 2
    for locs, raws, leaves in (
        ([loc], [raw], [base, loc, raw]),
        ([loc, loc], [raw, loc], [base, loc]),
    ):
        found = []
        for function in (BF.normal_rsample_kl_many, reference.normal_rsample_kl_many):
            total = _total(function(locs, raws, seed=5))
            found.append(
                torch.autograd.grad(total, leaves, create_graph=create_graph, retain_graph=True)
            )
        torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_some_gradients_some_results() -> None:
    loc, raw = arguments()
    full = torch.autograd.grad(_total(BF.normal_rsample_kl_many(loc, raw, **OPTIONS)), raw[0])
    frozen = [t.detach() for t in loc]
    some = [raw[0], *(t.detach() for t in raw[1:])]
    results = BF.normal_rsample_kl_many(frozen, some, **OPTIONS)
    assert torch.equal(torch.autograd.grad(_total(results), raw[0])[0], full[0])
    samples, kl = BF.normal_rsample_kl_many(loc, raw, **OPTIONS)
    by_one = torch.autograd.grad(
        samples[1].sum(), [loc[0], loc[1]], allow_unused=True, retain_graph=True
    )
    assert by_one[0] is None or not by_one[0].any()
    assert torch.equal(by_one[1], torch.ones(4, dtype=torch.float64))
    expected = torch.autograd.grad(BF.normal_kl(loc[0], raw[0], 0.0, 0.7), loc[0])
    torch.testing.assert_close(torch.autograd.grad(kl, loc[0]), expected, rtol=0, atol=0)


def test_compiled_and_transformed_agree_with_eager() -> None:
    loc, raw = arguments()
    n = len(loc)

    def function(*tensors: Tensor) -> Tensor:
        return _total(BF.normal_rsample_kl_many(tensors[:n], tensors[n:], **OPTIONS))

    tensors = [*loc, *raw]
    expected = torch.autograd.grad(function(*tensors), tensors)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*tensors), tensors), expected, rtol=1e-12, atol=1e-12
    )
    detached = [t.detach() for t in tensors]
    torch.testing.assert_close(
        torch.func.grad(function, tuple(range(2 * n)))(*detached), expected, rtol=1e-12, atol=1e-12
    )
    with BF.use_reference():
        torch.testing.assert_close(function(*tensors), function(*detached))


def test_a_seed_of_its_own_each_time() -> None:
    loc, raw = [torch.zeros(100), torch.zeros(100)], [torch.zeros(100), torch.zeros(100)]
    torch.manual_seed(3)
    (a, b), _ = BF.normal_rsample_kl_many(loc, raw)
    (c, _), _ = BF.normal_rsample_kl_many(loc, raw)
    torch.manual_seed(3)
    (again, _), _ = BF.normal_rsample_kl_many(loc, raw)
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(a, again)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loc": torch.zeros(3)}, TypeError, "loc: expected a list of tensors, got Tensor"),
        ({"loc": (), "raw_scale": ()}, ValueError, "loc: expected at least one tensor, got none"),
        ({"loc": (torch.zeros(2), 1.0)}, TypeError, r"loc\[1\]: expected a torch.Tensor"),
        (
            {"loc": (torch.zeros(2),)},
            ValueError,
            "raw_scale: expected 1 tensors, as of loc, got 2",
        ),
        (
            {"loc": (torch.zeros(2), torch.zeros(3).double())},
            TypeError,
            r"loc\[1\]: expected the dtype of loc\[0\]",
        ),
        (
            {"raw_scale": (torch.zeros(2), torch.zeros(1))},
            ValueError,
            r"raw_scale\[1\]: expected shape \[3\], that of loc\[1\], got \[1\]",
        ),
        ({"prior_scale": (1.0,)}, ValueError, "prior_scale: expected a number or 2 of them"),
        ({"prior_scale": (1.0, 0.0)}, ValueError, r"prior_scale\[1\]: expected"),
        ({"prior_loc": "a"}, TypeError, "prior_loc: expected"),
        ({"parametrization": "sqrt"}, ValueError, "parametrization: expected"),
        (
            {"parametrization": "scale", "raw_scale": (-torch.ones(2), torch.ones(3))},
            ValueError,
            "-1",
        ),
        ({"stream": -1}, ValueError, "stream: expected"),
        ({"seed": 0.5}, TypeError, "seed: expected"),
    ],
)
def test_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    call: dict[str, Any] = {
        "loc": (torch.zeros(2), torch.zeros(3)),
        "raw_scale": (torch.zeros(2), torch.zeros(3)),
        **changes,
    }
    with pytest.raises(error, match=message):
        BF.normal_rsample_kl_many(**call)
