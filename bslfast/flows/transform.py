"""What a transform is, and the ones without parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._precision import log_dtype


class Transform(nn.Module):
    """An invertible map of vectors whose log-determinant is known.

    A subclass implements :meth:`forward` and :meth:`inverse`. By convention ``forward`` leads from
    data to latent variables, the direction that training uses.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors that the map depends on; 0 if it depends on none.
    """

    def __init__(self, features: int, context: int = 0) -> None:
        super().__init__()
        self.features = _checks.integer("features", features)
        self.context = _checks.integer("context", context, 0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x``.

        Args:
            x: [..., features].
            context: [..., context], whose leading dimensions broadcast to those of ``x``; None if
                the transform takes none.

        Returns:
            (z [..., features], log |det dz/dx| [...]).

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``z`` back: the same with the roles of x and z exchanged.

        Returns:
            (x [..., features], log |det dx/dz| [...]).
        """
        raise NotImplementedError


class Composite(Transform):
    """Transforms one after the other; the inverse runs through them backwards.

    Args:
        transforms: at least one, all of the same number of features; those that take a context must
            agree on its size.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> from bslfast.flows import AffineCoupling, Composite, Reverse
    >>> transform = Composite([AffineCoupling(3), Reverse(3), AffineCoupling(3)])
    >>> x = torch.randn(4, 3)
    >>> z, log_det = transform(x)
    >>> back, _ = transform.inverse(z)
    >>> torch.equal(back, x), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        transforms = list(transforms)
        if not transforms:
            raise ValueError("transforms: expected at least one transform, got none")
        for transform in transforms:
            if not isinstance(transform, Transform):
                raise TypeError(
                    "transforms: expected instances of bslfast.flows.Transform, got "
                    f"{_checks.describe(transform)}"
                )
        features = transforms[0].features
        contexts = {t.context for t in transforms if t.context} or {0}
        if any(t.features != features for t in transforms):
            sizes = [t.features for t in transforms]
            raise ValueError(f"transforms: expected the same number of features, got {sizes}")
        if len(contexts) > 1:
            raise ValueError(
                "transforms: expected the same number of context features in all that have some, "
                f"got {[t.context for t in transforms]}"
            )
        super().__init__(features, contexts.pop())
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        total: Tensor | None = None
        for transform in self.transforms:
            x, log_det = transform(x, context if transform.context else None)
            total = log_det if total is None else total + log_det
        assert total is not None
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        total: Tensor | None = None
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            z, log_det = transform.inverse(z, context if transform.context else None)
            total = log_det if total is None else total + log_det
        assert total is not None
        return z, total


class Permutation(Transform):
    """A fixed reordering: ``z[..., i] = x[..., order[i]]``.

    Args:
        order: each of 0 ... features - 1 once.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> from bslfast.flows import Permutation
    >>> Permutation([2, 0, 1])(torch.tensor([[10.0, 11.0, 12.0]]))
    (tensor([[12., 10., 11.]]), tensor([0.]))
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        indices = torch.as_tensor(order)
        features = indices.numel()
        if (
            indices.dim() != 1
            or indices.is_floating_point()
            or not torch.equal(indices.sort().values.cpu(), torch.arange(features))
        ):
            raise ValueError(
                f"order: expected each of 0 to {max(features - 1, 0)} once, got {order!r}"
            )
        super().__init__(features)
        self.register_buffer("order", indices.long())
        self.register_buffer("inverse_order", indices.argsort())

    @classmethod
    def random(cls, features: int, seed: int = 0) -> Permutation:
        """Return the permutation that ``seed`` stands for; torch's generators are left alone."""
        _checks.integer("features", features)
        generator = torch.Generator().manual_seed(_checks.generator_seed(seed))
        return cls(torch.randperm(features, generator=generator))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        return x.index_select(-1, self.order), no_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        return z.index_select(-1, self.inverse_order), no_log_det(z)


class Reverse(Permutation):
    """The last feature first.

    >>> import torch
    >>> from bslfast.flows import Reverse
    >>> Reverse(3)(torch.tensor([10.0, 11.0, 12.0]))
    (tensor([12., 11., 10.]), tensor(0.))
    """

    def __init__(self, features: int) -> None:
        super().__init__(torch.arange(_checks.integer("features", features) - 1, -1, -1))


def no_log_det(x: Tensor, dims: int = 1) -> Tensor:
    """The log-determinants of a map of ``x`` that keeps volumes; its last ``dims`` are mapped."""
    return x.new_zeros(x.shape[:-dims], dtype=log_dtype(x.dtype))


def check_inputs(transform: Transform, name: str, x: Tensor, context: Tensor | None) -> None:
    """Raise unless ``x`` and ``context`` are what ``transform`` takes."""
    _check_vectors(name, x, transform.features, "features")
    if not transform.context:
        if context is not None:
            raise ValueError(
                f"context: expected None, as this {type(transform).__name__} was made without "
                f"context, got {_checks.describe(context)}"
            )
        return
    if context is None:
        raise ValueError(
            f"context: expected a tensor of shape [..., {transform.context}], as this "
            f"{type(transform).__name__} was made with context={transform.context}, got None"
        )
    _check_vectors("context", context, transform.context, "context features")
    given, wanted = context.shape[:-1], x.shape[:-1]
    if given != wanted and (
        len(given) > len(wanted)
        or any(g not in (1, w) for g, w in zip(reversed(given), reversed(wanted), strict=False))
    ):
        raise ValueError(
            f"context: expected leading dimensions that broadcast to those of {name}, "
            f"{list(wanted)}, got {list(given)}"
        )


def _check_vectors(name: str, value: Tensor, size: int, what: str) -> None:
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or value.dim() == 0
        or value.shape[-1] != size
    ):
        _checks.floating(name, value, shape=f"[..., {size}]")
        raise ValueError(
            f"{name}: expected a tensor of shape [..., {size}], with {size} {what} in the last "
            f"dimension, got {_checks.describe(value)}"
        )
