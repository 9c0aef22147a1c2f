"""Functions of peers that are swapped for a while."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bslfast
from bslfast import patch
from bslfast.patch import swapped as swapped_functions
from bslfast.patch.swapped import SWAPS

PEERS = sorted(SWAPS)
RQS = "unconstrained_rational_quadratic_spline"


def functions(peer: str) -> list[Any]:
    return [
        vars(owner)[swap.name.rsplit(".", 1)[-1]] for swap in SWAPS[peer] for owner in swap.owners()
    ]


def flows(peer: str) -> Iterator[Any]:
    """Couplings and autoregressive transforms of splines, with linear tails."""
    options: dict[str, Any] = {"num_bins": 6, "tails": "linear", "tail_bound": 3.0}
    if peer == "nflows":
        from nflows.nn.nets import ResidualNet
        from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform as Coupling
        from nflows.transforms.autoregressive import (
            MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Autoregressive,
        )
    else:
        from normflows.flows.neural_spline.autoregressive import (
            MaskedPiecewiseRationalQuadraticAutoregressive as Autoregressive,
        )
        from normflows.flows.neural_spline.coupling import (
            PiecewiseRationalQuadraticCoupling as Coupling,
        )
        from normflows.nets import ResidualNet
    mask = torch.tensor([1, 0, 1])
    extra: dict[str, Any] = {"apply_unconditional_transform": True}
    yield Coupling(mask, lambda a, b: ResidualNet(a, b, 16), **options, **extra)
    yield Autoregressive(3, 16, **options)


@pytest.mark.parametrize("peer", ["nflows", "normflows"])
def test_values_and_gradients(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(peer)
    torch.manual_seed(0)
    calls, spline = [], swapped_functions._spline
    monkeypatch.setattr(
        swapped_functions, "_spline", lambda *given: (calls.append(given), spline(*given))[1]
    )
    for flow in flows(peer):
        flow.double()
        for parameter in flow.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        x = (3 * torch.randn(50, 3, dtype=torch.float64)).requires_grad_()
        found = []
        for swapped in (False, True):
            if swapped:
                # Else twins compute both at once.
                with patch.using(peer), bslfast.whole_networks(False):
                    y, log_det = flow(x)
                    back, _ = flow.inverse(y.detach())
            else:
                y, log_det = flow(x)
                back, _ = flow.inverse(y.detach())
            loss = (y.sin().sum(dim=1) + log_det).square().sum()
            grads = torch.autograd.grad(loss, [x, *flow.parameters()])
            found.append((y, log_det, back, *grads))
        for own, their in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(own, their, rtol=1e-7, atol=1e-7)
    # Two calls there and two back for the coupling's parts. For the other one forward, and three
    # back: one for each feature.
    assert len(calls) == 2 + 2 + 1 + 3


@pytest.mark.parametrize("peer", PEERS)
def test_all_is_restored(peer: str) -> None:
    pytest.importorskip(peer)
    before = functions(peer)
    with patch.using(peer):
        inside = functions(peer)
        assert not any(a is b for a, b in zip(inside, before, strict=True))
        with patch.using(peer):
            pass
        assert functions(peer) == inside
    assert functions(peer) == before
    with pytest.raises(ZeroDivisionError), patch.using(peer):
        raise ZeroDivisionError
    assert functions(peer) == before


@pytest.mark.parametrize("peer", PEERS)
def test_blocks_that_overlap(peer: str) -> None:
    """One after the other, inside of itself, and in two threads."""
    pytest.importorskip(peer)
    before = functions(peer)
    first, second = patch.using(peer), patch.using(peer)
    first.__enter__()
    inside = functions(peer)
    second.__enter__()
    first.__exit__(None, None, None)
    assert functions(peer) == inside != before
    second.__exit__(None, None, None)
    assert functions(peer) == before
    with first:
        with first:
            pass
        assert not any(a is b for a, b in zip(functions(peer), before, strict=True))
    assert functions(peer) == before
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with patch.using(peer):
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=other)
    with patch.using(peer):
        thread.start()
        assert entered.wait(10)
    assert not any(a is b for a, b in zip(functions(peer), before, strict=True))
    left.set()
    thread.join()
    assert functions(peer) == before


def test_a_beginning_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nflows")
    before = functions("nflows")
    swaps = swapped_functions._SWAPPED["nflows"]
    missing = SWAPS["nflows"][0]._replace(name="missing")
    with monkeypatch.context() as patched:
        patched.setattr(swaps, "swaps", (*SWAPS["nflows"], missing))
        with pytest.raises(AttributeError, match="missing"), patch.using("nflows"):
            pass
    assert functions("nflows") == before
    with patch.using("nflows"):
        assert functions("nflows") != before
    assert functions("nflows") == before


def test_intervals_and_what_the_op_does_not_take() -> None:
    """nflows alone is tested, as normflows looks at no domain."""
    pytest.importorskip("nflows")
    module = importlib.import_module("nflows.transforms.splines")
    torch.manual_seed(0)
    x = 2 + 3 * torch.rand(50, dtype=torch.float64)
    widths, heights, slopes = torch.randn(50, 16, dtype=torch.float64).split([5, 5, 6], dim=-1)

    def calls() -> list[Any]:
        ends = {"left": 2.0, "right": 5.0, "bottom": 2.0, "top": 5.0}
        of = module.rational_quadratic_spline
        found = [of(x, widths, heights, slopes, inverse=i, **ends) for i in (False, True)]
        # Another interval, and tails that there are not.
        found.append(of(x, widths, heights, slopes, **(ends | {"top": 6.0})))
        # More slopes than nflows' own transforms hand over.
        found.append(getattr(module, RQS)(x - 3.5, widths, heights, slopes, tail_bound=2.0))
        for error, arguments in (
            ((Exception,), (x + 3.1, widths, heights, slopes)),
            ((RuntimeError,), (x, widths, heights, slopes[:, 1:-1], False, "other")),
        ):
            function = of if len(arguments) == 4 else getattr(module, RQS)
            with pytest.raises(error) as caught:
                function(*arguments, **({} if len(arguments) > 4 else ends))
            found.append(caught.type)
        return found

    before = calls()
    with patch.using("nflows"):
        inside = calls()
    for own, their in zip(inside, before, strict=True):
        if isinstance(their, type):
            assert own is their
        else:
            torch.testing.assert_close(own, their, rtol=1e-9, atol=1e-9)


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "normflows", None)
    with pytest.raises(ImportError, match="using: expected normflows to be installed") as found:
        patch.using("normflows").__enter__()
    assert found.value.name == "normflows"


def test_other_names() -> None:
    with pytest.raises(
        ValueError, match=r"peer: .*'zuko', got 'blitz', whose models bslfast.patch"
    ):
        patch.using("blitz")
    with pytest.raises(TypeError, match="peer: expected"):
        patch.using(3)  # type: ignore[arg-type]


def test_a_fork_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    """A copy of a peer with another name, such as glasflow has, is no peer; the page says so."""
    nflows = pytest.importorskip("nflows")
    original = Path(nflows.__file__).parent
    for file in original.rglob("*.py"):
        copied = tmp_path / "forked_nflows" / file.relative_to(original)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(re.sub(r"\bnflows\b", "forked_nflows", file.read_text()))
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    x, taken = torch.randn(6, 4), {}
    for package in ("nflows", "forked_nflows"):
        ran.clear()
        flow = importlib.import_module(f"{package}.flows").SimpleRealNVP(4, 8, 2, 1).eval()
        wanted = flow.log_prob(x)
        with patch.using("nflows"):
            torch.testing.assert_close(flow.log_prob(x), wanted, rtol=1e-4, atol=1e-4)
        taken[package] = len(ran)
    assert taken == {"nflows": 1, "forked_nflows": 0}
    with pytest.raises(ValueError, match="got a SimpleRealNVP without"):
        patch.convert(flow)
    page = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
    assert "glasflow has its own" in page
