"""What a transform is, and the ones without parameters."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from bslfast import _checks, programs
from bslfast._precision import log_dtype
from bslfast._torch import own_buffers, own_parameters
from bslfast.flows.domains import Defined, Step, forward_gap, inverse_gap

#: Why a flow with Bayesian layers is no program: ops use the draw of bslfast.nn.one_draw.
DRAWN = "weights of Bayesian layers are drawn"


class Transform(nn.Module):
    """An invertible map of vectors whose log-determinant is known.

    A subclass implements :meth:`forward` and :meth:`inverse`. By convention ``forward`` leads from
    data to latent variables, the direction that training uses. A subclass that is not defined
    everywhere, or does not reach everything, says so in :attr:`domain` and :attr:`codomain`.

    Outside of its domain a transform of this package returns a log-determinant of -inf, which is a
    density of 0, beside the image of the nearest vector inside; its inverse does so outside of the
    codomain.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors that the map depends on; 0 if it depends on none.

    Attributes:
        domain: what ``forward`` is defined on, a constraint of ``torch.distributions``.
        codomain: what it maps onto, which the inverse is defined on.
    """

    def __init__(self, features: int, context: int = 0) -> None:
        super().__init__()
        self.features = _checks.integer("features", features)
        self.context = _checks.integer("context", context, 0)

    @property
    def domain(self) -> constraints.Constraint:
        return constraints.real_vector

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.real_vector

    def steps(self) -> list[Step]:
        """The maps in a row that it is made of, but for those that only reorder features."""
        return [Step("", type(self).__name__, self.domain, self.codomain)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x``.

        Args:
            x: [..., features].
            context: [..., context], whose leading dimensions broadcast with those of ``x``; None
                if the transform takes none.

        Returns:
            (z [..., features], log |det dz/dx| [...]), with the leading dimensions broadcast.

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


class Row(Transform):
    """What is made of maps in a row, which :meth:`Transform.steps` names."""

    def _check_steps(self) -> None:
        steps = self.steps()
        there, back = forward_gap(steps), inverse_gap(steps)
        if there is not None and back is not None:
            what = there if there == back else f"{there}, while {back}"
            raise ValueError(
                "transforms: expected maps of which each is defined on all that comes from the one "
                f"before, or reaches all that the next is defined on, got a row in which {what}"
            )

    @property
    def domain(self) -> constraints.Constraint:
        steps = self.steps()
        if forward_gap(steps) is not None:
            return Defined(self)
        return steps[0].domain if steps else constraints.real_vector

    @property
    def codomain(self) -> constraints.Constraint:
        steps = self.steps()
        if inverse_gap(steps) is not None:
            return Defined(Inverse(self))
        return steps[-1].codomain if steps else constraints.real_vector


class Composite(Row):
    """Transforms one after the other; the inverse runs through them backwards.

    Args:
        transforms: at least one, all of the same number of features; those that take a context must
            agree on its size. The map or its inverse must be defined on all that the first or last
            step is: a step that is bounded, say, by another that is not on either side of it
            leaves no such direction.

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
        transforms = listed("transforms", transforms, Transform)
        features = transforms[0].features
        if any(t.features != features for t in transforms):
            sizes = [t.features for t in transforms]
            raise ValueError(f"transforms: expected the same number of features, got {sizes}")
        super().__init__(features, common_context(transforms))
        self.transforms = nn.ModuleList(transforms)
        self._check_steps()

    def steps(self) -> list[Step]:
        """See :meth:`Transform.steps`."""
        return steps_of(self.transforms)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x = check_inputs(self, "x", x, context)
        whole = programs.run(
            self, "forward", forward_steps, (self.features, self.context), "_by_ops", x, context
        )
        return self._by_ops(x, context) if whole is None else whole

    def _by_ops(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        for transform in self.transforms:
            x, log_det = transform(x, context if transform.context else None)
            total = log_det if total is None else total + log_det
        assert total is not None
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context)
        whole = programs.run(
            self,
            "inverse",
            inverse_steps,
            (self.features, self.context),
            "_inverse_by_ops",
            z,
            context,
        )
        return self._inverse_by_ops(z, context) if whole is None else whole

    def _inverse_by_ops(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            z, log_det = transform.inverse(z, context if transform.context else None)
            total = log_det if total is None else total + log_det
        assert total is not None
        return z, total


def forward_steps(builder: programs.Builder, transform: Transform) -> programs.Lanes:
    """From x to z."""
    return without_draws(builder, programs.lower(builder, transform, builder.x, False))


def inverse_steps(builder: programs.Builder, transform: Transform) -> programs.Lanes:
    """From z to x."""
    return without_draws(builder, programs.lower(builder, transform, builder.x, True))


def without_draws(builder: programs.Builder, lanes: programs.Lanes) -> programs.Lanes:
    """Return the lanes, or raise CannotLower if weights are drawn."""
    if builder.seeds:
        raise programs.CannotLower(DRAWN)
    return lanes


class Inverse(Transform):
    """A transform turned around: forward is its inverse, and the other way round.

    Args:
        transform: what is turned around, with its parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError: if ``transform`` is no :class:`Transform`.

    >>> import torch
    >>> from bslfast.flows import Inverse, Tanh
    >>> Inverse(Tanh(2))(torch.tensor([0.0, 0.5]))
    (tensor([0.0000, 0.5493]), tensor(0.2877))
    """

    def __init__(self, transform: Transform) -> None:
        transform = check_transform("transform", transform)
        super().__init__(transform.features, transform.context)
        self.transform = transform

    @property
    def domain(self) -> constraints.Constraint:
        return self.transform.codomain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.transform.domain

    def steps(self) -> list[Step]:
        """See :meth:`Transform.steps`."""
        return [step.inverse().inside("transform") for step in reversed(self.transform.steps())]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        try:
            return self.transform.inverse(x, context)
        except ERRORS:
            # The transform would call it z.
            explain_failure(self, "x", x, context)
            raise

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        try:
            mapped: tuple[Tensor, Tensor] = self.transform(z, context)
        except ERRORS:
            explain_failure(self, "z", z, context)
            raise
        return mapped


class Leading(Transform):
    """A transform of the first features; the others stay as they are.

    So flows of many scales leave features out of their later steps.

    Args:
        transform: of the first features, which are as many as it has.
        features: size of all vectors, >= those of ``transform``.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 3.6.

    >>> import torch
    >>> from bslfast.flows import Leading, LeakyReLU
    >>> Leading(LeakyReLU(1, negative_slope=0.5), 3)(torch.tensor([-2.0, -2.0, 3.0]))
    (tensor([-1., -2.,  3.]), tensor(-0.6931))
    """

    def __init__(self, transform: Transform, features: int) -> None:
        check_transform("transform", transform)
        super().__init__(features, transform.context)
        if transform.features > self.features:
            raise ValueError(
                f"features: expected at least {transform.features}, those of transform, got "
                f"{features}"
            )
        for name, where in (("domain", transform.domain), ("codomain", transform.codomain)):
            if where is not constraints.real_vector:
                raise ValueError(
                    f"transform: expected one of all numbers onto all numbers, got one with "
                    f"{name} {where!r}"
                )
        self.transform = transform
        self.sizes = (transform.features, self.features - transform.features)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x = check_inputs(self, "x", x, context)
        first, rest = x.split_with_sizes(self.sizes, dim=-1)
        first, log_det = self.transform(first, context)
        return torch.cat((first, rest), dim=-1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context)
        first, rest = z.split_with_sizes(self.sizes, dim=-1)
        first, log_det = self.transform.inverse(first, context)
        return torch.cat((first, rest), dim=-1), log_det

    def extra_repr(self) -> str:
        return f"features={self.features}"


class Permutation(Transform):
    """A fixed reordering: ``z[..., i] = x[..., order[i]]``.

    Args:
        order: each of 0 ... features - 1 once.
        device: of the indices; None for torch's default.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> from bslfast.flows import Permutation
    >>> Permutation([2, 0, 1])(torch.tensor([[10.0, 11.0, 12.0]]))
    (tensor([[12., 10., 11.]]), tensor([0.]))
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(
        self, order: Sequence[int] | Tensor, *, device: torch.device | str | None = None
    ) -> None:
        start = check_order("order", order)
        count = len(start)
        super().__init__(count)
        device = _checks.factory(device, None)["device"]
        # Numbers of Python, which no device, dtype or uninitialised memory changes.
        self._start = start
        self.register_buffer("order", torch.empty(count, dtype=torch.int64, device=device))
        self.register_buffer("inverse_order", torch.empty(count, dtype=torch.int64, device=device))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the indices to those that the permutation was made with."""
        order = torch.tensor(self._start, device="cpu")
        self.order.copy_(order)
        self.inverse_order.copy_(order.argsort())

    @classmethod
    def random(
        cls, features: int, seed: int = 0, *, device: torch.device | str | None = None
    ) -> Permutation:
        """Return the permutation that ``seed`` stands for; torch's generators are left alone."""
        _checks.integer("features", features)
        generator = torch.Generator().manual_seed(_checks.generator_seed(seed))
        order = torch.randperm(features, generator=generator, device="cpu")
        return Permutation(order, device=device)

    def steps(self) -> list[Step]:
        """None: what is asked of every feature alike does not depend on their order."""
        return []

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        return x.index_select(-1, self.order), no_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        return z.index_select(-1, self.inverse_order), no_log_det(z)

    def extra_repr(self) -> str:
        return f"features={self.features}"


class Reverse(Permutation):
    """The last feature first.

    Args:
        features: size of the vectors, >= 1.
        device: of the indices; None for torch's default.

    >>> import torch
    >>> from bslfast.flows import Reverse
    >>> Reverse(3)(torch.tensor([10.0, 11.0, 12.0]))
    (tensor([12., 11., 10.]), tensor(0.))
    """

    def __init__(self, features: int, *, device: torch.device | str | None = None) -> None:
        features = _checks.integer("features", features)
        super().__init__(range(features - 1, -1, -1), device=device)


def no_log_det(x: Tensor, dims: int = 1) -> Tensor:
    """The log-determinants of a map of ``x`` that keeps volumes; its last ``dims`` are mapped."""
    return x.new_zeros(x.shape[:-dims], dtype=log_dtype(x.dtype))


def check_order(name: str, order: Any) -> tuple[int, ...]:
    """Return ``order`` as Python has it if it is a permutation, else raise ValueError."""
    given: Any = order.tolist() if hasattr(order, "tolist") and has_values(order) else order
    count = len(given) if isinstance(given, Sequence) else 0
    if (
        not isinstance(given, Sequence)
        or any(isinstance(i, bool) or not isinstance(i, numbers.Integral) for i in given)
        or not count
        or sorted(given) != list(range(count))
    ):
        raise ValueError(f"{name}: expected each of 0 to {max(count - 1, 0)} once, got {order!r}")
    return tuple(int(i) for i in given)


def has_values(value: Any) -> bool:
    """Whether Python can list what is in ``value``: if it is a tensor, a dense one with memory."""
    return not isinstance(value, Tensor) or (
        value.layout == torch.strided
        and not (value.is_nested or value.is_meta or value.is_quantized)
    )


def check_transform(name: str, value: Any) -> Transform:
    """Return ``value`` if it is a transform, else raise TypeError."""
    if not isinstance(value, Transform):
        raise TypeError(
            f"{name}: expected an instance of bslfast.flows.Transform, got "
            f"{_checks.describe(value)}"
        )
    return value


_T = TypeVar("_T")


def listed(name: str, values: Any, kind: type[_T]) -> list[_T]:
    """Return ``values`` as a list if they are instances of ``kind``, and one at least."""
    what = f"bslfast.flows.{kind.__name__}"
    if not isinstance(values, Iterable):
        raise TypeError(
            f"{name}: expected a sequence of instances of {what}, got {_checks.describe(values)}"
        )
    found = list(values)
    if not found:
        raise ValueError(f"{name}: expected at least one transform, got none")
    for value in found:
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected instances of {what}, got {_checks.describe(value)}")
    return found


def common_context(transforms: Sequence[Any]) -> int:
    """The size of the context of all that take one; 0 if none does."""
    contexts: set[int] = {t.context for t in transforms if t.context} or {0}
    if len(contexts) > 1:
        raise ValueError(
            "transforms: expected the same number of context features in all that have some, "
            f"got {[t.context for t in transforms]}"
        )
    return contexts.pop()


def steps_of(transforms: Iterable[Any]) -> list[Step]:
    """The steps of all, of which each says what place it has among them."""
    return [
        step.inside(f"transforms[{index}]")
        for index, transform in enumerate(transforms)
        for step in transform.steps()
    ]


def check_inputs(
    transform: Any,
    name: str,
    x: Tensor,
    context: Tensor | None,
    like: Tensor | None = None,
    features: int | None = None,
) -> Tensor:
    """Raise unless ``x`` and ``context`` are what ``transform`` takes; return x, as broadcast.

    Args:
        transform: anything with numbers of ``features`` and ``context``.
        name: of x, in errors.
        x, context: what it is called with.
        like: a parameter, of which x must have the dtype and device; None if an op will tell, and
            :func:`explain_failure` then says what was wrong.
        features: size of x; None for ``transform.features``.
    """
    check_vectors(name, x, transform.features if features is None else features, "features")
    if like is not None and (x.dtype != like.dtype or x.device != like.device):
        check_like(transform, name, x, like)
    if not transform.context:
        if context is not None:
            check_no_context(transform, context)
        return x
    if context is None:
        raise ValueError(
            f"context: expected a tensor of shape [..., {transform.context}], as this "
            f"{type(transform).__name__} was made with context={transform.context}, got None"
        )
    check_vectors("context", context, transform.context, "context features")
    given, wanted = context.shape[:-1], x.shape[:-1]
    if given == wanted:
        return x
    if any(
        g != w and g != 1 and w != 1
        for g, w in zip(reversed(given), reversed(wanted), strict=False)
    ):
        raise ValueError(
            f"context: expected leading dimensions that broadcast with those of {name}, "
            f"{list(wanted)}, got {list(given)}"
        )
    return x.expand(*torch.broadcast_shapes(given, wanted), x.shape[-1])


def check_no_context(transform: Any, context: Any) -> None:
    """Raise, as there is a context, which ``transform`` does not take."""
    raise ValueError(
        f"context: expected None, as this {type(transform).__name__} was made without context, "
        f"got {_checks.describe(context)}"
    )


def check_vectors(name: str, value: Tensor, size: int, what: str) -> None:
    """Raise unless ``value`` is a dense tensor [..., size]; ``what`` it has ``size`` of."""
    if (
        not isinstance(value, Tensor)
        or value.is_nested
        or value.layout != torch.strided
        or not value.is_floating_point()
        or value.dim() == 0
        or value.shape[-1] != size
    ):
        _checks.floating(name, value, shape=f"[..., {size}]")
        _checks.operand(name, value)
        raise ValueError(
            f"{name}: expected a tensor of shape [..., {size}], with {size} {what} in the last "
            f"dimension, got {_checks.describe(value)}"
        )


#: What torch and the ops raise on arguments that they do not take.
ERRORS = (TypeError, ValueError, RuntimeError, IndexError, AttributeError)


def explain_failure(
    transform: Any, name: str, x: Tensor, context: Tensor | None, features: int | None = None
) -> None:
    """After a call of ``transform`` has failed, raise if an argument is why.

    So that calls which succeed pay nothing for looking at dtypes and devices. The arguments are
    those of :func:`check_inputs`; with 0 features, x is not looked at.
    """
    like = first_number(transform)
    if features == 0:
        x = torch.empty(0) if like is None else like.new_empty(0)
    try:
        check_inputs(transform, name, x, context, like, features)
        if like is not None and context is not None:
            check_like(transform, "context", context, like)
    except (TypeError, ValueError) as error:
        raise error from None  # without what has failed, which it explains


def check_like(
    module: Any, name: str, value: Tensor, like: Tensor, called: str | None = None
) -> None:
    """Raise unless ``value`` has the dtype and device of ``like``, a parameter of ``module``."""
    called = type(module).__name__ if called is None else called
    if value.device != like.device:
        raise ValueError(
            f"{name}: expected a tensor on {like.device}, the device of the {called}, got one on "
            f"{value.device}"
        )
    if value.dtype == like.dtype or under_autocast(value):
        return
    raise TypeError(
        f"{name}: expected {like.dtype}, the dtype of the {called}, got {_checks.describe(value)}"
    )


def under_autocast(value: Tensor) -> bool:
    """Whether ops may get numbers of another dtype than the parameters."""
    kind = value.device.type
    return kind != "meta" and torch.is_autocast_enabled(kind)  # torch has none of meta tensors


def first_number(module: nn.Module) -> Tensor | None:
    """The first floating-point parameter or buffer, whose dtype and device the others have."""
    # Not by parameters(), which takes several times as long.
    for part in module.modules():
        for tensor in (*own_parameters(part).values(), *own_buffers(part).values()):
            if tensor is not None and tensor.is_floating_point():
                return tensor
    return None
