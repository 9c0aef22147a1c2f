"""Noise: kernels against the plain-torch twin, reproducibility, and the distributions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bslfast._native import _cpu
from bslfast.reference import noise

LEVELS = _cpu.isa_levels()
DTYPES = [torch.float32, torch.float64]
SEED = 0x0123456789ABCDEF
# The bound for a kernel and its twin, which differ by a few roundings.
MAX_ULP = {torch.float32: 5.0, torch.float64: 5.0}


@contextlib.contextmanager
def isa(level: str) -> Iterator[None]:
    before = _cpu.isa()
    _cpu.set_isa(level)
    try:
        yield
    finally:
        _cpu.set_isa(before)


def normal(n: int, dtype: torch.dtype, seed: int = SEED, stream: int = 0, first: int = 0) -> Tensor:
    out = torch.empty(n, dtype=dtype)
    is_double = dtype == torch.float64
    _cpu.noise_normal(out.data_ptr(), n, is_double, seed % 2**64, stream, first)
    return out


def uniform(
    n: int, dtype: torch.dtype, seed: int = SEED, stream: int = 0, first: int = 0
) -> Tensor:
    out = torch.empty(n, dtype=dtype)
    is_double = dtype == torch.float64
    _cpu.noise_uniform(out.data_ptr(), n, is_double, seed % 2**64, stream, first)
    return out


def bits(n: int, seed: int = SEED, stream: int = 0, first: int = 0) -> Tensor:
    out = torch.empty(n, dtype=torch.uint32)
    _cpu.noise_bits(out.data_ptr(), n, seed % 2**64, stream, first)
    return out.to(torch.int64)


def ulps(actual: Tensor, expected: Tensor) -> float:
    spacing = np.spacing(np.abs(expected.numpy()))
    return float(((actual - expected).abs().numpy() / spacing).max())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("first", [0, 5, 2**34 - 50, 2**62 + 3])
@pytest.mark.parametrize("stream", [0, (7 << 32) + 3])
def test_bits_and_uniforms_are_those_of_the_twin(level: str, first: int, stream: int) -> None:
    n = 1001
    counters = torch.arange(first // 4, first // 4 + 300)
    words = noise.philox4x32(SEED, stream, counters).reshape(-1)[first % 4 :][:n]
    with isa(level):
        assert torch.equal(bits(n, stream=stream, first=first), words)
        for dtype in DTYPES:
            expected = noise.uniform((n,), SEED, stream, dtype, first=first)
            assert torch.equal(uniform(n, dtype, stream=stream, first=first), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 1, -1, SEED])
def test_normals_are_those_of_the_twin(level: str, dtype: torch.dtype, seed: int) -> None:
    n, first = 300_001, 2**34 - 1003
    expected = noise.normal((n,), seed, 5, dtype, first=first)
    with isa(level):
        actual = normal(n, dtype, seed, 5, first)
    assert ulps(actual, expected) <= MAX_ULP[dtype]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_alignment_gives_the_same_elements(level: str, dtype: torch.dtype) -> None:
    with isa(level):
        for make in (normal, uniform):
            whole = make(3000, dtype)
            for first in range(10):
                for n in (1, 3, 255, 256, 257, 1100):
                    assert torch.equal(make(n, dtype, first=first), whole[first : first + n])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_elements(dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(normal(100_003, dtype, first=1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_agree(dtype: torch.dtype) -> None:
    """Bits, and so uniforms, are identical. Normals may differ by the effect of FMA."""
    made = []
    for level in LEVELS:
        with isa(level):
            made.append((bits(5000), uniform(5000, dtype), normal(5000, dtype)))
    for words, uniforms, normals in made[1:]:
        assert torch.equal(words, made[0][0])
        assert torch.equal(uniforms, made[0][1])
        assert ulps(normals, made[0][2]) <= MAX_ULP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_seeds_and_streams_differ(dtype: torch.dtype) -> None:
    a = normal(4096, dtype)
    for b in (normal(4096, dtype, seed=SEED + 1), normal(4096, dtype, stream=1)):
        # The correlation of independent samples has a standard deviation of 1/64: 6 of them.
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 6 / 64


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_and_kolmogorov_smirnov(dtype: torch.dtype) -> None:
    """Seeds are fixed; for a fresh one, each of these would fail once in 500 million (6 sigma)."""
    n = 2_000_000
    z = normal(n, dtype).double()
    assert abs(z.mean()) < 6 / math.sqrt(n)
    assert abs((z**2).mean() - 1) < 6 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 6 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 6 * math.sqrt(96 / n)
    assert abs((z[0::2] * z[1::2]).mean()) < 6 / math.sqrt(n / 2)  # the two of a pair
    assert stats.kstest(z.numpy(), "norm").pvalue > 2e-9
    assert stats.kstest(uniform(n, dtype).double().numpy(), "uniform").pvalue > 2e-9


def test_tails_are_populated() -> None:
    """Counts beyond 4 and 5 sigma, each within 6 standard deviations of a Poisson variable."""
    n, chunk = 60_000_000, 4_000_000
    counts = np.zeros(2)
    for first in range(0, n, chunk):
        z = normal(chunk, torch.float32, first=first).abs()
        counts += [(z > 4).sum().item(), (z > 5).sum().item()]
    expected = n * 2 * stats.norm.sf([4, 5])
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbours_are_independent(dtype: torch.dtype) -> None:
    """Elements and their sizes are uncorrelated at distances up to 16: 32 numbers, 6 sigma each."""
    n = 1_000_000
    z = normal(n, dtype).double()
    for lag in range(1, 17):
        first, second = z[:-lag], z[lag:]
        assert abs((first * second).mean()) < 6 / math.sqrt(n)
        # (z^2 - 1) has variance 2.
        assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 6 * 2 / math.sqrt(n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", ["seed", "stream"])
def test_consecutive_seeds_and_streams_are_independent(dtype: torch.dtype, what: str) -> None:
    """Correlations of 64 consecutive ones (2016 pairs) are small; pairs of uniforms are spread."""
    n = 65536
    z = torch.stack([normal(n, dtype, **{what: k}) for k in range(64)])
    pairs = torch.corrcoef(z.double())[tuple(torch.triu_indices(64, 64, 1))]
    # The largest of 2016 exceeds 7 sigma once in 200 million seeds.
    assert pairs.abs().max() < 7 / math.sqrt(n)
    assert abs(pairs.square().mean() * n - 1) < 6 * math.sqrt(2 / 2016)
    cells = torch.zeros(256, dtype=torch.int64)
    u = torch.stack([uniform(n, dtype, **{what: k}) for k in range(64)]).double()
    for a, b in zip(u[0::2], u[1::2], strict=True):
        cells += torch.bincount((16 * a).long() * 16 + (16 * b).long(), minlength=256)
    assert stats.chisquare(cells.numpy()).pvalue > 2e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_twin_shapes_and_dtypes(dtype: torch.dtype) -> None:
    made = noise.normal((3, 0, 2), 1, dtype=dtype)
    assert made.shape == (3, 0, 2)
    made = noise.normal((2, 3), 1, dtype=dtype)
    assert made.dtype == dtype
    if dtype.itemsize == 2:
        assert torch.equal(made, noise.normal((2, 3), 1).to(dtype))


def test_twin_under_vmap_over_seeds() -> None:
    seeds = torch.tensor([3, -4, 5])
    made = torch.func.vmap(lambda seed: noise.normal((7,), seed, stream=2))(seeds)
    for row, seed in zip(made, seeds.tolist(), strict=True):
        assert torch.equal(row, noise.normal((7,), seed, stream=2))


def test_twin_with_fake_tensors() -> None:
    with FakeTensorMode() as mode:
        seed = mode.from_tensor(torch.tensor([3]))
        assert noise.normal((4, 5), seed, dtype=torch.float64).shape == (4, 5)
        assert noise.uniform((4, 5), 3).shape == (4, 5)
