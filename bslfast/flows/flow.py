"""A flow: a transform between data and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from bslfast import _checks, programs
from bslfast import functional as BF
from bslfast._precision import wide
from bslfast.flows.bases import Base, NormalBase
from bslfast.flows.domains import Constraint, Defined, Step, inverse_gap
from bslfast.flows.transform import (
    Composite,
    Transform,
    check_inputs,
    check_like,
    check_transform,
    check_vectors,
    first_number,
    inverse_steps,
    without_draws,
)
from bslfast.functional._op import runs_eagerly

#: A vector with a number beyond it is far away: steps may overflow, see :meth:`Flow.log_prob`.
FAR = 1e8


class Flow(nn.Module):
    r"""The density of x for which ``transform(x)`` is noise: standard normal, or of a base.

    .. math:: \log p(x) = \log N(f(x); 0, I) + \log\left|\det \frac{df}{dx}\right|

    Outside of f's domain the density is 0, its logarithm -inf. So it is where a step overflows: at
    vectors for which it would be no finite number, though they and the context are some, and all
    parameters are finite. These vectors have no gradient. A NaN in x or in the context stays one.
    A parameter that is no finite number gives NaN, but for vectors with a number beyond 1e8
    (float16: 256). Under torch.compile and torch.func, which do not look at parameters, overflow
    gives -inf at such far vectors alone.

    Args:
        transform: f, from data to noise.
        base: the distribution of the noise, such as a :class:`NormalBase`; None for the standard
            normal one. If both take a context, it is the same.

    Raises:
        TypeError: if ``transform`` is no :class:`Transform`, or ``base`` no :class:`Base`.
        ValueError: if the inverse of ``transform`` is not defined for all noise, which then would
            make no sample; or if ``base`` has other features or another context.

    Source: Papamakarios et al., "Normalizing flows for probabilistic modeling and inference" (2021,
    arXiv:1912.02762).

    >>> import torch
    >>> from bslfast.flows import AffineCoupling, Composite, Flow
    >>> flow = Flow(Composite([AffineCoupling(2), AffineCoupling(2, flip=True)]))
    >>> flow.log_prob(torch.zeros(1, 2)).detach()
    tensor([-1.8379])
    """

    _empty: Tensor

    def __init__(self, transform: Transform, base: Base | None = None) -> None:
        super().__init__()
        self.transform = check_transform("transform", transform)
        self.base = base
        self.features, self.context = transform.features, transform.context
        support: Constraint = constraints.real_vector
        if base is not None:
            self.context = _check_base(base, transform)
            support = base.support
        noise = Step("", "the noise", support, support)
        gap = inverse_gap([*transform.steps(), noise])
        if gap is not None:
            raise ValueError(
                "transform: expected one that leads from data to noise and has an inverse for all "
                f"noise, got one in which {gap}; bslfast.flows.Inverse turns a transform around"
            )
        # The dtype and device of a flow without parameters, which go where the module goes. There
        # is nothing in it that could be lost.
        self.register_buffer("_empty", torch.empty(0), persistent=False)

    def _takes(self) -> Transform | Base:
        """What knows all that the flow takes."""
        return self.transform if self.base is None or not self.base.context else self.base

    def _like(self) -> Tensor:
        """A tensor of the flow's dtype and device."""
        parts = (self.transform,) if self.base is None else (self.transform, self.base)
        for part in parts:
            found = first_number(part)
            if found is not None:
                return found
        # Orders of permutations, say, are where the flow is.
        device = next((b.device for b in self.transform.buffers()), self._empty.device)
        return self._empty.new_empty(0, device=device)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log density at ``x``, in nats.

        Args:
            x: [..., features], of the flow's dtype.
            context: [..., context], whose leading dimensions broadcast with those of ``x``; None
                for a flow without context.

        Returns:
            [...], the leading dimensions of x and context broadcast.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = check_inputs(self._takes(), "x", x, context)
        whole = programs.run(
            self,
            "density",
            _density_steps,
            (self.features, self.context),
            "_density_by_ops",
            x,
            context,
            value=False,
        )
        if whole is not None:
            return whole[1]
        self._check_dtypes("x", x, context)
        return self._density_by_ops(x, context)[1]

    def _program(self, x: Tensor, context: Tensor | None = None) -> programs.Lowered | None:
        """What computes :meth:`log_prob` as one call, if it can."""
        return programs.runnable(
            self, "density", _density_steps, (self.features, self.context), x, context
        )

    def _density_by_ops(self, x: Tensor, context: Tensor | None) -> tuple[None, Tensor]:
        log_prob = self._density_anywhere(x, context)
        eager = x.is_cpu and runs_eagerly((x, log_prob))
        if eager and bool(log_prob.detach().isfinite().all()):
            return None, log_prob
        given = x.detach()
        numbers = ~given.isnan().any(dim=-1)
        if context is not None:
            numbers = numbers & context.detach().isfinite().all(dim=-1)
        lost = numbers & ~log_prob.detach().isfinite()
        if not (eager and self._is_finite()):
            largest = min(FAR, math.sqrt(torch.finfo(x.dtype).max))
            lost = lost & (given.abs() > largest).any(dim=-1)
        if eager and log_prob.requires_grad and bool(lost.any()):
            # What has overflowed would make of a gradient of 0 one that is NaN.
            log_prob = self._density_anywhere(torch.where(lost.unsqueeze(-1), 0.0, x), context)
        return None, torch.where(lost, -math.inf, log_prob)

    def _is_finite(self) -> bool:
        tensors = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return all(bool(t.detach().isfinite().all()) for t in tensors)

    def _density_anywhere(self, x: Tensor, context: Tensor | None) -> Tensor:
        z, log_det = self.transform(x, context if self.transform.context else None)
        return self._log_prob(z, log_det, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return :meth:`log_prob`: so that DistributedDataParallel and torch.compile wrap it."""
        return self.log_prob(x, context)

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, *, seed: int | Tensor | None = None
    ) -> Tensor:
        """Draw ``n`` samples, for each context.

        Args:
            n: number of samples, >= 0.
            context: [..., context], or None for a flow without context.
            seed: an int, an int64 tensor of one element, or None to draw one from torch's
                generator; see :func:`bslfast.functional.normal_rsample`.

        Returns:
            [n, features], or [..., n, features] with a context [..., context]: as nflows orders
            them. ``distribution(context).sample((n,))`` is [n, ..., features], as
            torch.distributions does. No gradients.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        shape, context = self._shape_of(n, context)
        return self._rsample(shape, context, seed)

    def rsample_and_log_prob(
        self, n: int, context: Tensor | None = None, *, seed: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw ``n`` samples that carry gradients, and their log densities, in one pass.

        Args:
            n, context, seed: as in :meth:`sample`.

        Returns:
            (samples as from :meth:`sample`, their log densities: the same without ``features``).

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        shape, context = self._shape_of(n, context)
        return self._rsample_and_log_prob(shape, context, seed)

    def _rsample(
        self, shape: Sequence[int], context: Tensor | None, seed: int | Tensor | None
    ) -> Tensor:
        """The samples of :meth:`_rsample_and_log_prob`, with the same bits."""
        if self.base is not None and self._sampler(shape, context) is not None:
            return self._rsample_and_log_prob(shape, context, seed)[0]
        z = self._base_noise(shape, context, seed)
        x: Tensor = self.transform.inverse(z, context if self.transform.context else None)[0]
        return x

    def _sampler(self, shape: Sequence[int], context: Tensor | None) -> programs.Lowered | None:
        """What computes samples and their log densities as one call, if it can."""
        like = self._like().new_zeros(()).expand(*shape, self.features)
        sizes = self.features, self.context
        found = programs.runnable(self, "sample", _sample_steps, sizes, like, context)
        return found if like.numel() else None

    def _rsample_and_log_prob(
        self, shape: Sequence[int], context: Tensor | None, seed: int | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Samples [*shape, features] and their log densities [*shape]."""
        found = self._sampler(shape, context)
        if found is not None:
            noise = self._standard_noise(shape, seed)
            return programs.on_rows(found, (self, "_sample_by_ops", {}), noise, context, value=True)
        z = self._base_noise(shape, context, seed)
        return self._moved(z, context)

    def _moved(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.transform.inverse(z, context if self.transform.context else None)
        return x, self._log_prob(z, -log_det, context)

    def _sample_by_ops(self, noise: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """What standard normal noise becomes, and its log density."""
        if isinstance(self.base, NormalBase):
            loc, log_scale = self.base._parameters_at(noise, context if self.base.context else None)
            noise = loc + log_scale.exp() * noise
        return self._moved(noise, context)

    def explain(self) -> str:
        """Say how the flow runs now: as one call of a kernel, or op by op, and then why.

        A flow of small dense networks runs as one call on the CPU in eager mode, unless something
        watches its parts, such as hooks. Both ways give the same up to rounding;
        :class:`bslfast.whole_networks` switches the former off.

        >>> import bslfast
        >>> print(bslfast.flows.RealNVP(2, transforms=1, hidden=(8,)).explain())
        log_prob: one call of 5 steps
        sample: one call of 4 steps
        rsample_and_log_prob: one call of 5 steps
        """
        like = self._like()
        x = like.new_empty((1, self.features))
        density = programs.explain(
            self, "density", _density_steps, (self.features, self.context), x
        )
        if isinstance(self.transform, Composite):
            sizes = self.transform.features, self.transform.context
            inverse = programs.explain(self.transform, "inverse", inverse_steps, sizes, x)
        else:
            inverse = f"op by op: transform is a {type(self.transform).__name__}, no Composite"
        sizes = self.features, self.context
        sampled = programs.explain(self, "sample", _sample_steps, sizes, x)
        return f"log_prob: {density}\nsample: {inverse}\nrsample_and_log_prob: {sampled}"

    def distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """Return the distribution of x as a ``torch.distributions.Distribution``.

        Args:
            context: [..., context], its leading dimensions being the batch shape; None for a flow
                without context.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        >>> import torch, bslfast
        >>> flow = bslfast.flows.RealNVP(3, context=2)
        >>> distribution = flow.distribution(torch.randn(5, 2))
        >>> distribution.batch_shape, distribution.event_shape
        (torch.Size([5]), torch.Size([3]))
        >>> distribution.log_prob(distribution.sample((7,))).shape
        torch.Size([7, 5])
        """
        return FlowDistribution(self, context)

    def _log_prob(self, z: Tensor, log_det: Tensor, context: Tensor | None) -> Tensor:
        """The log density where the noise is ``z`` and log |det dz/dx| is ``log_det``."""
        if self.base is not None:
            return log_det + self.base.log_prob(z, context if self.base.context else None)
        log_det = log_det - 0.5 * math.log(2 * math.pi) * self.features
        return torch.add(log_det, wide(z).square().sum(dim=-1), alpha=-0.5)

    def _base_noise(
        self, shape: Sequence[int], context: Tensor | None, seed: int | Tensor | None
    ) -> Tensor:
        """Noise [*shape, features]."""
        if self.base is None:
            return self._standard_noise(shape, seed)
        like = self._like().new_zeros(()).expand(*shape, self.features)
        return self.base.rsample(like, context if self.base.context else None, seed)

    def _standard_noise(self, shape: Sequence[int], seed: int | Tensor | None) -> Tensor:
        """Standard normal noise by the kernel, seeded and on all threads."""
        zero = self._like().new_zeros(())
        loc = zero.expand(*shape, self.features)
        return BF.normal_rsample(loc, zero, parametrization="log_scale", seed=seed)

    def _shape_of(self, n: int, context: Tensor | None) -> tuple[Sequence[int], Tensor | None]:
        """The leading shape of n samples for each context, and that context for all of them."""
        n = _checks.integer("n", n, 0)
        batch: Sequence[int] = ()
        if context is not None or self.context:
            self.check_context(context)
        if context is not None:
            batch = context.shape[:-1]
            context = context.unsqueeze(-2)
        return (*batch, n), context

    def check_context(self, context: Tensor | None) -> None:
        """Raise unless ``context`` is what the flow takes."""
        shape = () if context is None or not isinstance(context, Tensor) else context.shape[:-1]
        z = self._like().new_empty(()).expand(*shape, self.features)
        check_inputs(self._takes(), "z", z, context)
        self._check_dtypes("z", z, context)

    def _check_dtypes(self, name: str, x: Tensor, context: Tensor | None) -> None:
        like = self._like()
        for key, value in ((name, x), ("context", context)):
            if value is None or (value.dtype == like.dtype and value.device == like.device):
                continue
            check_like(self, key, value, like, "flow")


def _density_steps(builder: programs.Builder, flow: Flow) -> programs.Lanes:
    """From x to z and its log density."""
    builder.looked_at(flow)
    builder.far = FAR
    lanes: programs.Lanes = programs.lower(builder, flow.transform, builder.x, False)
    if flow.base is None:
        builder.step("standard_normal", lanes, 0)
    else:
        programs.lower(builder, flow.base, lanes)
    return without_draws(builder, lanes)


def _sample_steps(builder: programs.Builder, flow: Flow) -> programs.Lanes:
    """From standard normal noise to x and its log density."""
    builder.looked_at(flow)
    # The steps add up what the density is divided by.
    builder.sign = -1.0
    builder.step("standard_normal", builder.x, 0, options=[True])
    lanes = builder.x
    if flow.base is not None:
        if not isinstance(flow.base, NormalBase):
            raise programs.CannotLower(f"samples of a {type(flow.base).__name__} have no steps")
        lanes = programs.lower(builder, flow.base, lanes, True)
    return without_draws(builder, programs.lower(builder, flow.transform, lanes, True))


def _check_base(base: Base, transform: Transform) -> int:
    """The size of the context that a flow takes."""
    if not isinstance(base, Base):
        raise TypeError(
            f"base: expected an instance of bslfast.flows.Base, got {_checks.describe(base)}"
        )
    if base.features != transform.features:
        raise ValueError(
            f"base: expected one of {transform.features} features, as transform has, got "
            f"{base.features}"
        )
    if base.context and transform.context and base.context != transform.context:
        raise ValueError(
            f"base: expected context={transform.context} or 0, as transform has the former, got "
            f"{base.context}"
        )
    return base.context or transform.context


class FlowDistribution(Distribution):
    """A flow at a given context, as ``torch.distributions`` has it.

    Args:
        flow: the flow; its parameters get gradients from ``log_prob`` and ``rsample``.
        context: [*batch_shape, context], or None.
        validate_args: as in ``torch.distributions.Distribution``: look at the values.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self, flow: Flow, context: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"flow: expected a bslfast.flows.Flow, got {_checks.describe(flow)}")
        flow.check_context(context)
        self.flow, self.context = flow, context
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, torch.Size((flow.features,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        """The domain of the flow's transform, outside of which the density is 0."""
        domain = self.flow.transform.domain
        if isinstance(domain, Defined):
            return Defined(domain.transform, self.context)
        return domain

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.flow).__name__}, "
            f"batch_shape: {tuple(self.batch_shape)}, event_shape: {tuple(self.event_shape)})"
        )

    def expand(
        self, batch_shape: Sequence[int], _instance: FlowDistribution | None = None
    ) -> FlowDistribution:
        """Return the same distribution with its batch shape expanded to ``batch_shape``."""
        checked_instance: Any = self._get_checked_instance
        new = checked_instance(FlowDistribution, _instance)
        batch_shape = torch.Size(_checks.sizes("batch_shape", batch_shape))
        own = self.batch_shape
        if len(own) > len(batch_shape) or any(
            n not in (1, m) for n, m in zip(reversed(own), reversed(batch_shape), strict=False)
        ):
            raise ValueError(
                f"batch_shape: expected one that {list(own)} can be expanded to, got "
                f"{list(batch_shape)}"
            )
        new.flow, new.context = self.flow, self.context
        if self.context is not None:
            new.context = self.context.expand(*batch_shape, self.flow.context)
        super(FlowDistribution, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        result: FlowDistribution = new
        return result

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of ``value`` [..., *batch_shape, features]."""
        check_vectors("value", value, self.flow.features, "features")
        try:
            shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        except RuntimeError:
            raise ValueError(
                "value: expected leading dimensions that broadcast with batch_shape, "
                f"{list(self.batch_shape)}, got {_checks.describe(value)}"
            ) from None
        if self._validate_args:
            self._validate_sample(value)
        return self.flow.log_prob(value.expand(*shape, value.shape[-1]), self.context)

    def rsample(
        self, sample_shape: Sequence[int] = (), *, seed: int | Tensor | None = None
    ) -> Tensor:
        """Draw samples that carry gradients, [*sample_shape, *batch_shape, features]."""
        return self._draw(sample_shape, seed)

    def rsample_and_log_prob(
        self, sample_shape: Sequence[int] = (), *, seed: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples and their log densities [*sample_shape, *batch_shape] in one pass."""
        shape = (*_checks.sample_shape(sample_shape), *self.batch_shape)
        return self.flow._rsample_and_log_prob(shape, self.context, seed)

    def sample(
        self, sample_shape: Sequence[int] = (), *, seed: int | Tensor | None = None
    ) -> Tensor:
        """Draw samples without gradients, [*sample_shape, *batch_shape, features]."""
        with torch.no_grad():
            return self._draw(sample_shape, seed)

    def _draw(self, sample_shape: Sequence[int], seed: int | Tensor | None) -> Tensor:
        shape = (*_checks.sample_shape(sample_shape), *self.batch_shape)
        return self.flow._rsample(shape, self.context, seed)
