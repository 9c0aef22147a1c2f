"""Random cases with fixed seeds, the same in every run of the tests (docs/testing.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from fuzz import arguments, calls, files, run
from fuzz.known import KNOWN, Known
from fuzz.records import BY_NAME, Adapted
from ops.record import threads
from torch import Tensor

import bslfast

pytestmark = pytest.mark.filterwarnings("ignore")
#: Cases of each op, class and kind of file.
COUNTS = {"calls": 12, "arguments": 12, "modules": 6, "files": 60}


def test_every_function_is_fuzzed() -> None:
    """Only the context manager is not fuzzed; functional/every_op tests it."""
    assert {*BY_NAME, "use_reference"} == set(bslfast.functional.__all__)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, names) in run.DRAWN.items() for name in names]
)
def test_random_cases(kind: str, name: str) -> None:
    """Each case is right or refused by name. Some calls, models and files must be accepted."""
    rng = Random(f"{kind} {name}")
    draw: Any = run.DRAWN[kind][0]
    options = {"large": False} if kind == "calls" else {}
    taken = 0
    for _ in range(COUNTS[kind]):
        with threads(1):  # small tensors, and who tests may share the machine
            found = run.outcome(draw(name, rng, **options))
        assert isinstance(found, bool), str(found)
        taken += found
    assert taken >= (kind != "arguments")


@pytest.mark.parametrize(
    "case",
    [
        arguments.Wrong("normal_kl", (("reduction", "ndarray"),), "softplus-sum"),
        arguments.Wrong("normal_kl", (("reduction", "nested"),), "softplus-sum"),
        arguments.Wrong("normal_rsample", (("seed", "nested"),), "softplus"),
        arguments.Wrong("normal_rsample", (("sample_shape", str(2**63)),), "softplus"),
        arguments.Wrong("standard_normal", (("dtype", "ndarray"),)),
        arguments.Wrong("standard_normal", (("device", "ndarray"),)),
        arguments.Wrong("standard_normal", (("device", "''"),)),
        calls.Plan("bayes_linear", "bias", (3, 0)),
        calls.Plan(
            *("logistic_rsample_log_prob", "log_scale-sum-row_raw-samples", ()),
            values=(("raw_scale", 0.0, 100.0),),
            grads=("none", "ones"),
        ),
        calls.Plan(
            *("logistic_rsample_log_prob", "scale-none-column_loc", ()),
            values=(("raw_scale", 0.0, 0.0),),
            grads=("ones", "none"),
        ),
        calls.Plan(
            *("affine_coupling", "exp-inverse-row-row_parameters", (1,)),
            values=(("raw_scale", 0.0, -1e30),),
            needs=("shift",),
            grads=("none", "ones"),
        ),
        calls.Plan(
            *("normal_rsample_kl_many", "two", ()),
            values=(("second_raw_scale", 0.0, 1e30),),
            grads=("ones",),
        ),
        calls.Plan(
            *("laplace_kl", "log_var-row-wide_prior", (1,), 1),
            values=(("prior_scale", 0.0, 1e-30),),
        ),
        calls.Plan(
            *("student_t_rsample", "log_var-scalar_df", (23,), 69779),
            values=(("df", 0.0, 1e-4),),
        ),
        *(files.File("json", seed) for seed in (180682371, 339212670, 907881820, 958234144)),
    ],
    ids=repr,
)
def test_once_found(case: Any) -> None:
    """Random cases have found these faults, which are now right or refused by name."""
    found = run.attempt(case)
    assert isinstance(found, bool), found


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.reason)
def test_known_faults_still_are(known: Known) -> None:
    """A fault that is gone has to be deleted from the list; an entry covers its own example."""
    assert known.covers(known.example)
    assert isinstance(run.attempt(known.example), str), f"delete it: {known.reason}"


# --- the tests themselves ------------------------------------------------------------------------


def _with_result(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def adapter(function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(**arguments: Any) -> Any:
            result = function(**arguments)
            return result if "reference" in function.__module__ else change(result)

        return changed

    return adapter


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r * (1 + 1e-4), "result 0"),
        (lambda r: torch.where(r > r.mean(), math.nan, r), "result 0.*nan"),
        (lambda r: r[:1], "result 0.*Size|Mismatch"),
        (lambda r: r.detach() + 0 * r, "d x|d loc|d raw_scale"),
    ],
    ids=["value", "nan", "shape", "gradient"],
)
def test_wrong_results_are_found(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor], message: str
) -> None:
    record = BY_NAME["normal_log_prob"]
    wrong = Adapted(record.name, record.variants, record.tolerance, adapter=_with_result(change))
    monkeypatch.setitem(BY_NAME, record.name, wrong)
    with pytest.raises((AssertionError, RuntimeError), match=message):
        calls.Plan(record.name, "softplus-none", (3, 4)).check()


def test_wrong_messages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    case = arguments.Wrong("normal_kl", (("parametrization", "'text'"),), "softplus-sum")
    assert case.check() is False

    def refuse(**_: Any) -> None:
        raise ValueError("text")

    monkeypatch.setattr(bslfast.functional, "normal_kl", refuse)
    with pytest.raises(AssertionError, match="without an argument's name"):
        case.check()


def test_cases_are_made_again_and_simpler() -> None:
    """The text of a case is Python that makes it. A failure is reported by its simplest case."""
    names = {"calls": calls, "arguments": arguments, "math": math}
    for kind in ("calls", "arguments"):
        draw, ops = run.DRAWN[kind]
        for op in ops:
            case = draw(op, Random(op))
            assert repr(eval(repr(case), names)) == repr(case)


def test_failures_are_made_simple(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(plan: calls.Plan) -> bool:
        assert len(plan.shape) < 2, "two dimensions"
        return True

    monkeypatch.setattr(calls.Plan, "check", check)
    layouts = {"log_weights": "strided"}
    found = run.outcome(calls.Plan("iwae_bound", "last", (5, 7), 3, layouts=layouts))
    assert isinstance(found, run.Failure)
    assert found.case == calls.Plan("iwae_bound", "last", (1, 1), grads=("none",))
