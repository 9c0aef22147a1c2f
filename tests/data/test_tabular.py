"""Splitting and scaling of tables."""

from __future__ import annotations

import pytest
import torch

from bslfast.data import Standardizer, load_wine, split


@pytest.mark.parametrize("rows", [5, 10, 178, 4898])
def test_split_puts_every_row_in_exactly_one_part(rows: int) -> None:
    x = torch.arange(rows).float().unsqueeze(1)
    parts = split(x, x.squeeze(1), (0.6, 0.2, 0.2))
    together = torch.cat([part.x for part in parts]).flatten()
    assert torch.equal(together.sort().values, torch.arange(rows).float())
    assert [len(part.x) for part in parts[:2]] == [round(0.6 * rows), round(0.2 * rows)]
    for part in parts:
        assert torch.equal(part.x.squeeze(1), part.y)  # inputs and targets stay together


def test_split_depends_on_the_seed_alone() -> None:
    x, y = torch.randn(50, 2), torch.randn(50, 1)
    first = split(x, y, seed=3)
    torch.manual_seed(99)
    again, other = split(x, y, seed=3), split(x, y, seed=4)
    assert torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.test.x, other.test.x)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([[1.0]], torch.zeros(1)), TypeError, r"x: expected a tensor, got a list"),
        ((torch.zeros(4, 1), torch.zeros(3)), ValueError, r"y: expected as many rows as x"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.5, 0.5)), ValueError, r"fractions: .*\(0.5, 0.5\)"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.5, 0.5, 0.5)), ValueError, "fractions: .*add up"),
        ((torch.zeros(9, 1), torch.zeros(9), (1.2, -0.1, -0.1)), ValueError, "fractions: .*1.2"),
        ((torch.zeros(2, 1), torch.zeros(2)), ValueError, r"x: expected enough rows .*got 2"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.6, 0.2, 0.2), -1), ValueError, "seed: .*got -1"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.6, 0.2, 0.2), 2**64), ValueError, r"seed: .*2\^64"),
    ],
)
def test_split_refuses(arguments: tuple, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        split(*arguments)


# --- Standardizer ---------------------------------------------------------------------------------


def test_standardizer_gives_zero_mean_and_unit_scale_and_inverts() -> None:
    x = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e4])
    x += torch.tensor([1.0, -5.0, 1e3])
    scaler = Standardizer.fit(x)
    z = scaler.transform(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3).double(), atol=1e-11, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3).double())
    torch.testing.assert_close(scaler.inverse(z), x, rtol=1e-12, atol=1e-10)


def test_standardizer_knows_the_training_part_alone() -> None:
    data = load_wine()
    parts = split(data.x, data.y)
    scaler = Standardizer.fit(parts.train.x)
    torch.testing.assert_close(scaler.mean, parts.train.x.double().mean(0).float())
    # Whatever happens to the held-out rows leaves the scaler as it was.
    held_out = set(map(tuple, torch.cat([parts.validation.x, parts.test.x]).tolist()))
    spoiled = torch.tensor([[1e6] * 13 if tuple(r) in held_out else r for r in data.x.tolist()])
    again = Standardizer.fit(split(spoiled, data.y).train.x)
    assert torch.equal(again.mean, scaler.mean)
    assert torch.equal(again.scale, scaler.scale)


def test_standardizer_sets_a_constant_column_to_zero() -> None:
    x = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]])
    scaler = Standardizer.fit(x)
    assert scaler.scale[0] == 1
    assert torch.equal(scaler.transform(x)[:, 0], torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 12345.678, -1e-7, 1e30, 1e300])
def test_standardizer_of_a_constant_column_whatever_its_sum_rounds_to(
    value: float, dtype: torch.dtype
) -> None:
    if abs(value) > torch.finfo(dtype).max:
        return
    for rows in (1, 3, 7, 1000, 12345):
        x = torch.full((rows, 1), value, dtype=dtype)
        scaler = Standardizer.fit(x)
        assert scaler.scale.item() == 1
        assert not scaler.transform(x).any()


@pytest.mark.parametrize(
    ("first", "dtype"),
    [(0.3, torch.float64), (1e8, torch.float32), (-12345.678, torch.float64)],
)
def test_standardizer_of_a_column_that_is_nearly_constant(first: float, dtype: torch.dtype) -> None:
    """Neighbouring numbers, such as 0.3 and 0.1 + 0.2, are a constant; further ones are not."""
    low = torch.tensor(first, dtype=dtype)
    high = torch.nextafter(low, torch.tensor(torch.inf, dtype=dtype))
    x = torch.stack([low, high] * 500).unsqueeze(1)
    scaler = Standardizer.fit(x)
    assert scaler.scale.item() == 1
    assert scaler.transform(x).abs().max() <= high - low
    far = low + 8 * (high - low)
    scale = Standardizer.fit(torch.stack([low, far] * 500).unsqueeze(1)).scale
    assert scale.item() == ((far - low) / 2).item()


@pytest.mark.parametrize(
    ("column", "dtype"),
    [([0.0, 0.0, 0.0, 1e-45], torch.float32), ([-1e308, 1e308], torch.float64)],
)
def test_standardizer_refuses_spreads_that_the_dtype_does_not_hold(
    column: list[float], dtype: torch.dtype
) -> None:
    x = torch.tensor(column, dtype=dtype)
    x = torch.stack([torch.arange(len(x)).to(x), x], 1)
    with pytest.raises(ValueError, match=r"x: expected columns whose .* in columns \[1\]"):
        Standardizer.fit(x)


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        ([[1.0]], TypeError, r"x: expected a floating-point tensor of shape \[rows, columns\]"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, r"x: .*got a tensor .*int64"),
        (torch.ones(2), ValueError, r"x: .*shape \(2,\)"),
        (torch.ones(0, 2), ValueError, "x: expected at least one row"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, r"x: .*NaN or infinity in columns \[1\]"),
    ],
)
def test_standardizer_refuses_to_fit(x: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Standardizer.fit(x)


def test_standardizer_refuses_other_columns_and_dtypes() -> None:
    scaler = Standardizer.fit(torch.randn(5, 3))
    with pytest.raises(
        ValueError, match=r"x: expected a torch.float32 tensor of shape \[rows, 3\]"
    ):
        scaler.transform(torch.randn(5, 2))
    with pytest.raises(ValueError, match=r"z: .*got a tensor .*float64"):
        scaler.inverse(torch.randn(5, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="scale: expected positive"):
        Standardizer(torch.zeros(1), torch.zeros(1))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale: expected finite values, got"):
            Standardizer(torch.zeros(1), torch.tensor([bad]))
        with pytest.raises(ValueError, match="mean: expected finite values, got"):
            Standardizer(torch.tensor([bad]), torch.ones(1))
