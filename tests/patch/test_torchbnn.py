"""torchbnn's layers as bslfast's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import bslfast
from bslfast import patch
from bslfast.nn import at_means, kl

bnn = pytest.importorskip("torchbnn")


def made(bias: bool = True) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        bnn.BayesConv2d(0.1, 0.3, 2, 4, 3, stride=2, padding=1, groups=2, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        bnn.BayesLinear(0.1, 0.3, 64, 3, bias=bias),
    )
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("bias", [True, False])
def test_layers(bias: bool) -> None:
    model = made(bias)
    with pytest.warns(UserWarning, match=r"BKLLoss finds no layers .* and returns 0"):
        ours: Any = patch.convert(model)
    assert [type(ours[i]) for i in (0, 3)] == [bslfast.nn.BayesConv2d, bslfast.nn.BayesLinear]
    assert bnn.BKLLoss(reduction="sum")(ours) == 0
    # With "sum" it is ours, with "mean" that divided by the number of weights.
    torch.testing.assert_close(kl(ours), bnn.BKLLoss(reduction="sum")(model)[0])
    weights = sum(w.loc.numel() for i in (0, 3) for w in ours[i].weights())
    torch.testing.assert_close(kl(ours) / weights, bnn.BKLLoss(reduction="mean")(model)[0])
    for weight, log_sigma in zip(
        [w for i in (0, 3) for w in ours[i].weights()],
        [p for n, p in model.named_parameters() if "log_sigma" in n],
        strict=True,
    ):
        torch.testing.assert_close(weight.stddev(), log_sigma.exp())
    x = torch.randn(5, 2, 8, 8)
    with at_means(ours):
        means = ours(x)
    for name, parameter in model.named_parameters():
        if "log_sigma" in name:
            parameter.data.fill_(-30.0)
    torch.testing.assert_close(means, model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:torchbnn")
def test_what_is_refused() -> None:
    model = made()
    model[3].freeze()
    model.append(bnn.BayesBatchNorm2d(0.0, 1.0, 3))
    model.append(bnn.BayesConv2d(0.0, 1.0, 1, 1, 3, padding=1, padding_mode="circular"))
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(model)
    assert list(found.value.reasons) == ["3", "4", "5"]
    model[3].unfreeze()
    patch.convert(model[:4])
