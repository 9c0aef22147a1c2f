"""The likelihood ops beside torch.distributions, and cases beyond the table of ops."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Normal

import bslfast.functional as BF
from bslfast import reference

SCALES = {
    "softplus": torch.nn.functional.softplus,
    "scale": lambda raw: raw,
    "log_scale": torch.exp,
    "log_var": lambda raw: torch.exp(0.5 * raw),
}


def test_bernoulli_closed_form() -> None:
    logits = 5 * torch.randn(7, 9, dtype=torch.float64)
    x = torch.randint(0, 2, (7, 9)).double()
    expected = Bernoulli(logits=logits).log_prob(x)
    torch.testing.assert_close(BF.bernoulli_log_prob(x, logits, reduction="none"), expected)
    torch.testing.assert_close(BF.bernoulli_log_prob(x, logits), expected.sum(-1))
    torch.testing.assert_close(BF.bernoulli_log_prob(x, logits, reduction="sum"), expected.sum())


def test_bernoulli_keeps_small_results() -> None:
    """For certain outcomes x l - softplus(l) would be 0 in float32."""
    logits = torch.tensor([20.0, -20.0, 60.0])
    x = torch.tensor([1.0, 0.0, 1.0])
    found = BF.bernoulli_log_prob(x, logits, reduction="none")
    expected = -torch.exp(-logits.abs())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("parametrization", SCALES)
def test_normal_closed_form(parametrization: str) -> None:
    x, loc = torch.randn(2, 7, 9, dtype=torch.float64)
    raw = torch.rand(9, dtype=torch.float64) + 0.1
    expected = Normal(loc, SCALES[parametrization](raw)).log_prob(x)
    found = BF.normal_log_prob(x, loc, raw, parametrization=parametrization)
    torch.testing.assert_close(found, expected.sum(-1))


def test_normal_of_tiny_scales() -> None:
    """The variance of such a scale underflows in float32, its logarithm does not."""
    log_scale = torch.tensor([-60.0])
    x = torch.zeros(1)
    found = BF.normal_log_prob(x, x, log_scale, parametrization="log_scale")
    torch.testing.assert_close(found, torch.tensor(60.0 - 0.9189385))


@pytest.mark.parametrize("classes", [1, 3, 64, 65, 1000, 10_000])
def test_categorical_closed_form(classes: int) -> None:
    logits = 3 * torch.randn(37, classes, dtype=torch.float64)
    index = torch.randint(classes, (37,))
    expected = Categorical(logits=logits, validate_args=False).log_prob(index)
    torch.testing.assert_close(BF.categorical_log_prob(index, logits), expected)
    torch.testing.assert_close(
        BF.categorical_log_prob(index, logits, reduction="sum"), expected.sum()
    )


@pytest.mark.parametrize(
    ("logits_shape", "index_shape"),
    [((5,), ()), ((5,), (4,)), ((3, 1, 5), (4,)), ((2, 3, 5), (3,)), ((0, 5), (0,)), ((5,), (0,))],
)
def test_categorical_broadcasts(
    logits_shape: tuple[int, ...], index_shape: tuple[int, ...]
) -> None:
    """Samples of the logits share an index, and the gradient is summed over what is shared."""
    index = torch.randint(5, index_shape)
    results = []
    for function in (BF.categorical_log_prob, reference.categorical_log_prob):
        logits = torch.linspace(-1, 1, int(torch.Size(logits_shape).numel())).double()
        logits = logits.reshape(logits_shape).requires_grad_()
        log_prob = function(index, logits)
        (grad,) = torch.autograd.grad((log_prob * log_prob.detach()).sum(), logits)
        results.append((log_prob.detach(), grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_categorical_reads_any_layout() -> None:
    logits, index = torch.randn(9, 7), torch.randint(7, (9, 2))[:, 0]
    expected = BF.categorical_log_prob(index.contiguous(), logits)
    assert torch.equal(BF.categorical_log_prob(index, logits.t().contiguous().t()), expected)


def test_categorical_index_out_of_range_is_nan_where_nothing_is_checked() -> None:
    """Devices without kernels give NaN; in eager mode on the CPU it is an error, see the record."""
    logits, index = torch.randn(3, 4, requires_grad=True), torch.tensor([1, 4, -1])
    with BF.use_reference():
        found = BF.categorical_log_prob(index, logits)
    assert found.isnan().tolist() == [False, True, True]


def test_categorical_index_is_compiled_as_an_argument() -> None:
    logits = torch.randn(6, 4, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(BF.categorical_log_prob, fullgraph=True, backend="aot_eager")
    for index in (torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 3, 3, 0, 0, 0])):
        expected = torch.autograd.grad(BF.categorical_log_prob(index, logits).sum(), logits)
        actual = torch.autograd.grad(compiled(index, logits).sum(), logits)
        assert torch.equal(actual[0], expected[0])


def test_categorical_maps_over_the_index() -> None:
    logits, index = torch.randn(4), torch.tensor([0, 3, 2])
    found = torch.func.vmap(BF.categorical_log_prob, (0, None))(index, logits)
    assert torch.equal(found, BF.categorical_log_prob(index, logits.expand(3, 4)))
