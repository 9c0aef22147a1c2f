"""More elements than a 32-bit index can count."""

from __future__ import annotations

import pytest
import torch

import bslfast.functional as BF
from bslfast.reference import noise

ROWS, COLUMNS = 2**16, 2**15 + 1  # 2^31 + 2^16 elements


def test_sums_over_more_than_2_to_the_31_elements() -> None:
    """Expanded tensors take no memory; the sum is known from one column."""
    column = torch.linspace(-2, 2, ROWS, dtype=torch.float64).float()[:, None]
    zero, raw_scale = torch.zeros(()), torch.tensor(0.25)
    x = column.expand(ROWS, COLUMNS)
    options = {"parametrization": "log_scale", "reduction": "sum"}
    total = BF.normal_log_prob(x, zero, raw_scale, **options)
    expected = BF.normal_log_prob(column.double(), zero.double(), raw_scale.double(), **options)
    torch.testing.assert_close(total.double(), expected * COLUMNS, rtol=1e-6, atol=0)
    by_row = BF.normal_log_prob(x, zero, raw_scale, parametrization="log_scale", reduction="row")
    last = BF.normal_log_prob(column[-1:].expand(1, COLUMNS), zero, raw_scale, **options)
    assert by_row[-1] == last


@pytest.mark.slow
def test_draws_more_than_2_to_the_31_elements() -> None:
    """The last of 4 GB of samples have the noise of their own indices."""
    loc = torch.zeros(1, dtype=torch.bfloat16).expand(ROWS, COLUMNS)
    raw_scale = torch.zeros((), dtype=torch.bfloat16)
    x = BF.normal_rsample(loc, raw_scale, parametrization="log_scale", seed=1)
    for first in (0, 2**31 - 20, ROWS * COLUMNS - 40):
        z = noise.normal((40,), 1, dtype=torch.float32, first=first)
        torch.testing.assert_close(x.view(-1)[first : first + 40], z.bfloat16(), rtol=0.01, atol=0)
