"""Generated data sets."""

from __future__ import annotations

import torch

from bslfast import _checks
from bslfast.data.tabular import Dataset


def load_moons(rows: int = 10_000, noise: float = 0.05, seed: int = 0) -> Dataset:
    """Return points on two interleaved half circles, with normal noise.

    ``x`` is float32 [rows, 2] and ``y`` int64 [rows], the half circle. They depend only on the
    arguments.

    Args:
        rows: number of points, at least 2.
        noise: standard deviation of the noise, >= 0.
        seed: a non-negative integer below 2^32.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
        ModuleNotFoundError: if scikit-learn is not installed.

    Source: ``sklearn.datasets.make_moons``.

    Example:
        >>> data = load_moons(100)
        >>> tuple(data.x.shape), data.y.bincount().tolist()
        ((100, 2), [50, 50])
    """
    _checks.integer("rows", rows, 2)
    _checks.number("noise", noise, minimum=0.0)
    if _checks.generator_seed(seed) >= 2**32:
        raise ValueError(f"seed: expected an integer below 2^32, got {seed}")
    try:
        from sklearn.datasets import make_moons
    except ImportError:
        raise ModuleNotFoundError(
            "load_moons: expected scikit-learn, which generates the data, to be installed: "
            "pip install scikit-learn"
        ) from None
    x, y = make_moons(rows, noise=noise, random_state=seed)
    return Dataset(
        torch.from_numpy(x).float(),
        torch.from_numpy(y).long(),
        ("x1", "x2"),
        ("upper", "lower"),
        f"sklearn.datasets.make_moons with noise {noise:g}, seed {seed}",
    )
