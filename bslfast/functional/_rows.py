"""Ops over rows: what stands between a function of :mod:`bslfast.functional` and its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._native.rows import NOTHING, NUMBER, ROW, Kernels
from bslfast.functional._op import ONE_DTYPE, in_common, unwatched
from bslfast.functional._pointwise import PointwiseOp
from bslfast.functional._vmap import Folding


class RowOp(PointwiseOp):
    """Checks the arguments of an op over rows and calls it.

    Args:
        name, tensors, others: as in :class:`PointwiseOp`. The kernels say which tensors are rows
            [..., n]. The others have one number for each row. Leading dimensions broadcast.
        what: what is on the last dimension of rows, for error messages.
        least: the shortest rows.

    Attributes:
        longest: the longest rows; 0 if they may have any length.
    """

    _kernels: Kernels  # type: ignore[assignment]
    _kernels_of = Kernels  # type: ignore[assignment]

    def __init__(
        self, name: str, tensors: Sequence[str], *, what: str, least: int = 0, **others: Any
    ) -> None:
        self._what, self._least = what, least
        super().__init__(name, tensors, **others)
        self.longest = self._kernels.longest

    def _rounded(self) -> int:
        return int(self._kernels.has_value)

    def _folding(self) -> Folding:
        kernels = self._kernels
        return Folding(
            inner=tuple(int(kind == ROW) for kind in kernels.kinds),
            value={NOTHING: None, NUMBER: 0, ROW: 1}[kernels.value],
            has_log=kernels.has_log,
            reductions=_checks.REDUCTIONS if kernels.reduces else (),
            adds_up=kernels.adds_up,
        )

    def _looked_at(
        self, tensors: tuple[Tensor, ...], seed: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], bool, torch.Size]:
        directly = unwatched() and in_common(tensors) >= ONE_DTYPE
        if not directly:
            tensors = self._checked(tensors)
        self._check_rows(tensors)
        shapes = {
            name: t.shape[:-1] if kind == ROW else t.shape
            for name, kind, t in zip(self.tensors, self._kernels.kinds, tensors, strict=True)
        }
        return tensors, directly, _checks.broadcast_shapes(shapes, "leading dimensions")

    def _check_rows(self, tensors: tuple[Tensor, ...]) -> None:
        """All of one length, which the kernels take."""
        length: int | None = None
        like, least, most = "", self._least, self._kernels.longest
        for name, kind, t in zip(self.tensors, self._kernels.kinds, tensors, strict=True):
            if kind != ROW:
                continue
            if t.dim() == 0:
                raise ValueError(f"{name}: expected shape [..., {self._what}], got []")
            found = t.shape[-1]
            if length is None:
                length, like = found, name
                if most and not least <= length <= most:
                    raise ValueError(
                        f"{name}: expected {least} to {most} {self._what} in the last "
                        f"dimension, got {length}"
                    )
            if found != length:
                raise ValueError(
                    f"{name}: expected a last dimension of {length}, as {like} has, got {found}"
                )
