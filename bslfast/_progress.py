"""Progress bars."""

from __future__ import annotations

import contextlib
from typing import Any


def bar(total: int, show: bool, *, desc: str, unit: str, initial: int = 0) -> Any:
    """Return a context manager whose value is a tqdm bar on standard error, or None.

    Raises:
        ModuleNotFoundError: if the bar is wanted and tqdm is not installed.
    """
    if not show:
        return contextlib.nullcontext()
    try:
        from tqdm import tqdm
    except ImportError:
        raise ModuleNotFoundError(
            "progress: expected tqdm to be installed for the progress bar: pip install tqdm"
        ) from None
    return tqdm(total=total, initial=initial, desc=desc, unit=unit, mininterval=0.5)
