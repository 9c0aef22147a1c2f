"""The peers, from where benchmarks put them too; and what is compared of flows."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast.patch import twins

PEERS = Path(__file__).parents[2] / "build" / "peers"
sys.path += [str(place) for place in sorted(PEERS.glob("*")) if place.is_dir()]

#: (their flow, ours, their log densities) -> None
Comparison = Callable[..., None]


@pytest.fixture
def compare() -> Comparison:
    """Compare the log densities of flows in float64, gradients, inverses and samples.

    ``log_prob(x, context)`` are theirs. Where ``steps`` is True or False, both directions run as
    one call, or do not.
    """

    def compared(
        theirs: nn.Module,
        log_prob: Callable[[Tensor, Tensor | None], Tensor],
        features: int,
        context: int = 0,
        *,
        steps: bool | None = None,
    ) -> Any:
        x = 1.5 * torch.randn(40, features, dtype=torch.float64)
        x.requires_grad_()
        c = torch.randn(40, context, dtype=torch.float64) if context else None
        before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
        ours: Any = bslfast.patch.convert(theirs)
        assert isinstance(ours, bslfast.flows.Flow)
        assert ours.training == theirs.training
        wanted = log_prob(x, c)
        by_x, by_weights = gradients(wanted, x, theirs)
        # Weights are copied: so a conversion takes gradients to where those of ours are.
        other = bslfast.patch.convert(with_parameters(theirs, by_weights))
        moved = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        # A state is all that a converted flow needs.
        other.load_state_dict(ours.state_dict())
        torch.testing.assert_close(other(x, c), wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(copy.deepcopy(ours)(x, c), wanted, rtol=1e-10, atol=1e-10)
        for on in (True, False):
            with bslfast.whole_networks(on):
                found = ours.log_prob(x, c)
                torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
                our_by_x, our_by_weights = gradients(found, x, ours)
                torch.testing.assert_close(our_by_x, by_x, rtol=1e-8, atol=1e-8)
                for name, grad in our_by_weights.items():
                    if name.startswith("transform") and "conditioner" in name:
                        torch.testing.assert_close(grad, moved[name], rtol=1e-8, atol=1e-8)
                with torch.no_grad():
                    own = c if ours.transform.context else None
                    back = ours.transform.inverse(ours.transform(x, own)[0], own)[0]
                    torch.testing.assert_close(back, x.detach(), rtol=1e-6, atol=1e-6)
                samples = ours.sample(7, None if c is None else c[:3])
                assert samples.shape == ((7, features) if c is None else (3, 7, features))
                assert samples.isfinite().all()
        if steps is not None:
            runs = dict(line.split(": ", 1) for line in ours.explain().splitlines())
            for call in ("log_prob", "sample"):
                assert runs[call].startswith("one call") == steps, ours.explain()
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(tensor, before[name])
        return ours

    return compared


def gradients(log_prob: Tensor, x: Tensor, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Those of the sum of squares of log densities, by x and by the parameters."""
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    names, parameters = zip(*learned, strict=True) if learned else ((), ())
    by_x, *by_weights = torch.autograd.grad(
        log_prob.square().sum(), [x, *parameters], allow_unused=True, materialize_grads=True
    )
    return by_x, dict(zip(names, by_weights, strict=True))


def with_parameters(model: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    """A copy with other parameters."""
    found = copy.deepcopy(model)
    for name, parameter in found.named_parameters():
        if name in values:
            parameter.data.copy_(values[name])
    return found


@pytest.fixture
def double() -> Iterator[None]:
    """normflows adds up in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What twins have computed."""
    calls: list[str] = []
    compute = twins.Twin.compute

    def noted(self: twins.Twin, what: str, x: Tensor, context: Tensor | None) -> list[Tensor]:
        calls.append(what)
        return compute(self, what, x, context)

    monkeypatch.setattr(twins.Twin, "compute", noted)
    return calls
