"""Every op at the end of the range, and its errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops import RECORDS
from ops.every import (
    DTYPES,
    SHAPE,
    SMALL,
    first_case,
    of_each_case,
    of_each_op,
    of_each_random_op,
    widest_case,
)
from ops.record import (
    Case,
    Error,
    Extreme,
    OpRecord,
    assert_close,
    assert_extreme,
    expected_results,
    run,
)
from torch import Tensor

from bslfast._native import _cpu

# --- the end of the range ------------------------------------------------------------------------


EXTREMES = [
    pytest.param(record, extreme, dtype, id=f"{record.name}-{extreme.name}-{str(dtype)[6:]}")
    for record in RECORDS
    for extreme in record.extremes
    for dtype in DTYPES
]


@pytest.mark.parametrize(("record", "extreme", "dtype"), EXTREMES)
def test_extreme_values(record: OpRecord, extreme: Extreme, dtype: torch.dtype) -> None:
    """Nothing overflows early or cancels, and only NaN becomes NaN, at every instruction set."""
    assert_extreme(record, extreme, dtype, levels=_cpu.isa_levels())


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
@of_each_case
def test_special_values_stay_in_their_place(case: Case, special: float) -> None:
    """An infinity or NaN in an argument changes its own results alone. NaN comes through."""
    for dtype in DTYPES:
        plain = case.call(dtype, SHAPE)
        for name, tensor in plain.tensors.items():
            changed = tensor.clone()
            changed.view(-1)[tensor.numel() // 2] = special
            call = plain.but(**{name: changed})
            try:
                results = run(case.record.function, call)
            except ValueError as error:
                # A negative scale, say. NaN and inf are numbers that a training run meets.
                allowed = name in case.record.bounded and math.isinf(special)
                assert allowed or special == -math.inf, error  # noqa: PT017
                assert str(error).startswith(name)  # noqa: PT017
                continue
            expected = expected_results(case.record, call)
            bound = case.record.tolerance[dtype].value
            elements = max(t.numel() for t in (*results, *call.tensors.values()))
            for r, e in zip(results, expected, strict=True):
                assert_close(r, e, bound, elements=elements, label=f"{name}={special}")
            if math.isnan(special):
                assert any(r.isnan().any() for r in results), f"NaN in {name} disappeared"


# --- errors --------------------------------------------------------------------------------------


ERRORS = [
    pytest.param(record, error, id=f"{record.name}-{error.name}")
    for record in RECORDS
    for error in record.errors
]


@pytest.mark.parametrize(("record", "error"), ERRORS)
def test_refuses(record: OpRecord, error: Error) -> None:
    """Errors name the argument, what was expected and what came, with and without gradients."""
    call = first_case(record).call(torch.float32, SMALL)
    arguments = {**call.tensors, **call.options, **error.arguments}
    for grad in (False, True):
        given = {
            k: v.detach().clone().requires_grad_(grad)
            if isinstance(v, Tensor) and v.is_floating_point()
            else v
            for k, v in arguments.items()
        }
        with pytest.raises(error.exception, match=error.match):
            record.function(**given)


WRONG_TENSORS: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "list": (lambda t: t.tolist(), TypeError, "expected a.* torch.Tensor.* got list"),
    "ndarray": (lambda t: t.numpy(), TypeError, "expected a.* torch.Tensor.* got ndarray"),
    "none": (lambda t: None, TypeError, "expected a.* torch.Tensor.* got NoneType"),
    "int64": (lambda t: t.long(), TypeError, "expected dtype float32, float64, .* got int64"),
    "bool": (lambda t: t > 0, TypeError, "expected dtype float32, float64, .* got bool"),
    "complex": (lambda t: t.cfloat(), TypeError, "expected dtype .* got complex64"),
    "float8": (lambda t: t.to(torch.float8_e5m2), TypeError, "expected dtype .* got float8_e5m2"),
    "sparse": (lambda t: t.to_sparse(), (TypeError, ValueError), "expected .* got .*sparse"),
    "mkldnn": (lambda t: t.to_mkldnn(), (TypeError, ValueError), "expected .* got .*mkldnn"),
}


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
@of_each_op
def test_refuses_wrong_tensors(record: OpRecord, wrong: str) -> None:
    """Every op refuses wrong tensors in every argument, without a line in the record."""
    make, exception, match = WRONG_TENSORS[wrong]
    call = widest_case(record).call(torch.float32, SMALL)
    for name, tensor in call.tensors.items():
        with pytest.raises(exception, match=rf"^{name}: {match}"):
            record.function(**{**call.tensors, name: make(tensor)}, **call.options)


@of_each_op
def test_refuses_unlike_tensors(record: OpRecord) -> None:
    """Nothing is promoted, nothing moved in silence."""
    call = widest_case(record).call(torch.float32, SMALL)
    first, *others = call.tensors
    for name in others:
        double = call.tensors[name].double()
        with pytest.raises(
            TypeError, match=rf"^{name}: expected the dtype of {first}, float32, got float64"
        ):
            run(record.function, call.but(**{name: double}))
        meta = call.tensors[name].to("meta")
        with pytest.raises(
            ValueError, match=rf"^{name}: expected the device of {first}, cpu, got meta"
        ):
            run(record.function, call.but(**{name: meta}))


@pytest.mark.parametrize(
    ("argument", "value", "exception", "match"),
    [
        ("seed", 1.5, TypeError, "got 1.5"),
        ("seed", True, TypeError, "got True"),
        ("seed", "1", TypeError, "got '1'"),
        ("seed", 2**64, ValueError, "got 18446744073709551616"),
        ("seed", -(2**63) - 1, ValueError, "got -9223372036854775809"),
        ("seed", torch.tensor(1.0), TypeError, "dtype float32"),
        ("seed", torch.tensor(1, dtype=torch.int32), TypeError, "dtype int32"),
        ("seed", torch.tensor([1, 2]), TypeError, r"shape \[2\]"),
        ("seed", torch.empty((), dtype=torch.int64, device="meta"), ValueError, "meta"),
        ("stream", -1, ValueError, "got -1"),
        ("stream", 2**63, ValueError, "got 9223372036854775808"),
        ("stream", 0.5, TypeError, "got 0.5"),
        ("stream", None, TypeError, "got None"),
    ],
)
@of_each_random_op
def test_refuses_seeds(
    record: OpRecord, argument: str, value: Any, exception: type[Exception], match: str
) -> None:
    call = first_case(record).call(torch.float32, SMALL)
    with pytest.raises(exception, match=rf"^{argument}: expected .*{match}"):
        run(record.function, call.options_but(**{argument: value}))
