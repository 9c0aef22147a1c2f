"""Distributions of the noise that flows lead to, other than the standard normal one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from bslfast import _checks
from bslfast import functional as BF
from bslfast.distributions import VonMises
from bslfast.flows.conditioners import Conditioner
from bslfast.flows.domains import between, mapped_inside
from bslfast.flows.transform import check_inputs, check_like


class Base(nn.Module):
    """A distribution of vectors, which a :class:`Flow` takes as its noise.

    A subclass implements :meth:`log_prob` and :meth:`rsample`, and says in :attr:`support` where
    the density is not 0, if not everywhere.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
    """

    def __init__(self, features: int, context: int = 0) -> None:
        super().__init__()
        self.features = _checks.integer("features", features)
        self.context = _checks.integer("context", context, 0)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log densities [...] of ``z`` [..., features], in nats."""
        raise NotImplementedError

    def rsample(self, like: Tensor, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """Return samples of the shape, dtype and device of ``like`` [..., features]."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"features={self.features}, context={self.context}"


class _Learned(Base):
    """Independent features, with parameters that are learned or made from the context."""

    def __init__(
        self,
        features: int,
        start: Sequence[float],
        *,
        context: int,
        hidden: Sequence[int],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(features, context)
        self.conditioner = Conditioner(
            0,
            self.features * len(start),
            context=context,
            hidden=hidden,
            start=[value for value in start for _ in range(self.features)],
            device=device,
            dtype=dtype,
        )
        self._count = len(start)

    def _parameters_at(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Each parameter of all features, [..., features]."""
        found: Tensor = self.conditioner(z[..., :0], context)
        return found.chunk(self._count, dim=-1)


class _Located(_Learned):
    """A location and a second parameter for each feature, both 0 at the start."""

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            features, (0.0, 0.0), context=context, hidden=hidden, device=device, dtype=dtype
        )


class NormalBase(_Located):
    """Independent normal distributions with learned locations and scales; standard at the start.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors that locations and scales depend on; 0 for none.
        hidden: widths of the hidden layers of the network that makes them of the context.
        device, dtype: of the parameters.

    Shape: z [..., features] -> log densities [...].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Papamakarios et al., "Normalizing flows for probabilistic modeling and inference" (2021,
    arXiv:1912.02762), section 2.

    >>> import torch
    >>> from bslfast.flows import AffineCoupling, Flow, NormalBase
    >>> flow = Flow(AffineCoupling(2), NormalBase(2, context=3))
    >>> flow.sample(4, torch.randn(5, 3)).shape
    torch.Size([5, 4, 2])
    """

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """See :meth:`Base.log_prob`."""
        check_inputs(self, "z", z, context)
        loc, log_scale = self._parameters_at(z, context)
        check_like(self, "z", z, loc)
        return BF.normal_log_prob(z, loc, log_scale, parametrization="log_scale", reduction="row")

    def rsample(self, like: Tensor, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """See :meth:`Base.rsample`."""
        loc, log_scale = self._parameters_at(like, context)
        loc = loc.expand(like.shape)
        return BF.normal_rsample(loc, log_scale, parametrization="log_scale", seed=seed)


class NormalMixtureBase(Base):
    r"""A mixture of normal distributions with learned weights, locations and scales.

    .. math:: p(z) = \sum_{k=1}^K w_k \prod_d N(z_d; \mu_{kd}, \sigma_{kd}^2)

    At the start the weights are equal, the locations standard normal numbers, always the same
    ones, and the scales 1. As the prior of a :class:`bslfast.vae.VAE` it takes the code's place.

    Samples have no gradient for the weights: where one is wanted, :meth:`rsample` raises.

    Args:
        features: size of the vectors, >= 1.
        components: K, >= 1.
        context: size of the context vectors that all of it depends on; 0 for none.
        hidden: widths of the hidden layers of the network that makes it of the context.
        device, dtype: of the parameters.

    Shape: z [..., features] -> log densities [...].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Bishop, "Pattern recognition and machine learning" (2006, ISBN 978-0-387-31073-2),
    section 2.3.9.

    >>> import torch
    >>> from bslfast.flows import AffineCoupling, Flow, NormalMixtureBase
    >>> flow = Flow(AffineCoupling(2), NormalMixtureBase(2, components=5))
    >>> flow.log_prob(torch.zeros(3, 2)).shape, flow.sample(4).shape
    (torch.Size([3]), torch.Size([4, 2]))
    """

    def __init__(
        self,
        features: int,
        components: int = 10,
        *,
        context: int = 0,
        hidden: Sequence[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, context)
        self.components = _checks.integer("components", components)
        values = self.components * self.features
        locs = torch.randn(values, generator=torch.Generator().manual_seed(0), device="cpu")
        self.conditioner = Conditioner(
            0,
            self.components + 2 * values,
            context=context,
            hidden=hidden,
            start=[0.0] * self.components + locs.tolist() + [0.0] * values,
            device=device,
            dtype=dtype,
        )

    def _parameters_at(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [..., K], locations and log scales [..., K, features]."""
        found: Tensor = self.conditioner(z[..., :0], context)
        values = self.components * self.features
        logits, *others = found.split([self.components, values, values], dim=-1)
        loc, log_scale = (other.unflatten(-1, (-1, self.features)) for other in others)
        return logits, loc, log_scale

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """See :meth:`Base.log_prob`."""
        check_inputs(self, "z", z, context)
        logits, loc, log_scale = self._parameters_at(z, context)
        check_like(self, "z", z, loc)
        each = BF.normal_log_prob(
            z.unsqueeze(-2), loc, log_scale, parametrization="log_scale", reduction="row"
        )
        return (logits.log_softmax(-1) + each).logsumexp(-1)

    def rsample(self, like: Tensor, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """See :meth:`Base.rsample`.

        Raises:
            RuntimeError: if the weights want a gradient.
        """
        logits, loc, log_scale = self._parameters_at(like, context)
        if torch.is_grad_enabled() and logits.requires_grad:
            raise RuntimeError(
                "rsample: expected torch.no_grad(), as samples of a mixture have no gradient for "
                "its weights, which want one"
            )
        shape = like.shape[:-1]
        seed = _checks.seed(seed, like.device)
        logits = logits.expand(*shape, self.components)
        # Which of the components, by noise of another stream than what is drawn from them.
        which = BF.gumbel_softmax_rsample(logits, 1.0, hard=True, seed=seed, stream=1).argmax(-1)
        index = which[..., None, None].expand(*shape, 1, self.features)
        loc, log_scale = (
            p.expand(*shape, *p.shape[-2:]).gather(-2, index).squeeze(-2) for p in (loc, log_scale)
        )
        return BF.normal_rsample(loc, log_scale, parametrization="log_scale", seed=seed)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}"


class StudentTBase(_Learned):
    """Independent Student's t distributions with learned parameters: noise with heavy tails.

    A flow whose steps are lines far out, such as splines with linear tails, has the tails of its
    noise.

    Args:
        features: size of the vectors, >= 1.
        df: degrees of freedom at the start, 1e-30 to 1e30; they are learned as well.
        context: size of the context vectors that the parameters depend on; 0 for none.
        hidden: widths of the hidden layers of the network that makes them of the context.
        device, dtype: of the parameters.

    Shape: z [..., features] -> log densities [...].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Jaini, Kobyzev, Yu and Brubaker, "Tails of Lipschitz triangular flows" (2020,
    arXiv:1907.04481).

    >>> import torch
    >>> from bslfast.flows import NSF, Flow, StudentTBase
    >>> flow = Flow(NSF(1).transform, StudentTBase(1, df=1.0))
    >>> flow.log_prob(torch.zeros(1, 1)).detach()
    tensor([-1.1447])
    """

    def __init__(
        self,
        features: int,
        *,
        df: float = 5.0,
        context: int = 0,
        hidden: Sequence[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        df = _checks.number("df", df, above=0.0)
        if not 1e-30 <= df <= 1e30:
            raise ValueError(f"df: expected a number from 1e-30 to 1e30, got {df!r}")
        start = (math.log(df), 0.0, 0.0)
        super().__init__(
            features, start, context=context, hidden=hidden, device=device, dtype=dtype
        )

    def _parameters_at(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Degrees of freedom, locations and log scales."""
        log_df, loc, log_scale = super()._parameters_at(z, context)
        # Those of one row may round to 0, which the ops refuse for all rows.
        return log_df.exp().clamp(min=torch.finfo(log_df.dtype).tiny), loc, log_scale

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """See :meth:`Base.log_prob`."""
        check_inputs(self, "z", z, context)
        df, loc, log_scale = self._parameters_at(z, context)
        check_like(self, "z", z, loc)
        return BF.student_t_log_prob(
            z, df, loc, log_scale, parametrization="log_scale", reduction="row"
        )

    def rsample(self, like: Tensor, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """See :meth:`Base.rsample`."""
        df, loc, log_scale = self._parameters_at(like, context)
        loc = loc.expand(like.shape)
        return BF.student_t_rsample(df, loc, log_scale, parametrization="log_scale", seed=seed)


class UniformBase(Base):
    """Every feature uniform on an interval: on the circle, say, by splines with circular tails.

    Args:
        features: size of the vectors, >= 1.
        low, high: ends of the interval; float32 holds both and their difference.

    Shape: z [..., features] -> log densities [...], -inf outside.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende et al., "Normalizing flows on tori and spheres" (2020, arXiv:2002.02428).

    >>> import math, torch
    >>> from bslfast.flows import Composite, Flow, SplineCoupling, UniformBase
    >>> options = {"bound": math.pi, "tails": "circular"}
    >>> couplings = [SplineCoupling(2, flip=flip, **options) for flip in (False, True)]
    >>> flow = Flow(Composite(couplings), UniformBase(2, -math.pi, math.pi))
    >>> flow.log_prob(torch.tensor([[0.0, 3.0], [0.0, 4.0]])).detach()
    tensor([-3.6758,    -inf])
    """

    def __init__(self, features: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(features)
        # Both, and the length of the interval, as numbers of float32: z may be of any dtype.
        self.low = _checks.number("low", low, dtype=torch.float32)
        self.high = _checks.number("high", high, above=self.low, dtype=torch.float32)
        if self.high - self.low > torch.finfo(torch.float32).max:
            raise ValueError(
                "high: expected a number whose difference from low torch.float32 holds, got "
                f"{high!r}, and {low!r} for low"
            )

    @property
    def support(self) -> constraints.Constraint:
        return between(self.low, self.high, closed=True)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """See :meth:`Base.log_prob`."""
        check_inputs(self, "z", z, context)
        outside = ((z < self.low) | (z > self.high)).any(dim=-1)
        # z - z is NaN where z is.
        inside = (z - z).sum(dim=-1) - self.features * math.log(self.high - self.low)
        log_prob: Tensor = torch.where(outside, -math.inf, inside)
        return log_prob

    def rsample(self, like: Tensor, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """See :meth:`Base.rsample`."""
        zero = like.new_zeros(())
        loc = zero.expand(like.shape)
        normal = BF.normal_rsample(loc, zero, parametrization="log_scale", seed=seed)
        uniform = torch.special.ndtr(normal)
        samples: Tensor = self.low + (self.high - self.low) * uniform
        return samples.clamp(self.low, self.high)

    def extra_repr(self) -> str:
        return f"features={self.features}, low={self.low:g}, high={self.high:g}"


class VonMisesBase(_Located):
    r"""Independent von Mises distributions of angles, with learned locations and concentrations.

    .. math:: p(z) = \prod_d \frac{e^{k_d \cos(z_d - m_d)}}{2 \pi I_0(k_d)}, \quad |z_d| \le \pi

    At the start the locations are 0 and the concentrations 1. As noise of flows on the circle, by
    splines with circular tails and ``bound=math.pi``, where the whole circle is alike:
    :class:`UniformBase`.

    Samples carry gradients for both parameters, see :class:`bslfast.distributions.VonMises`.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors that locations and concentrations depend on; 0 for
            none.
        hidden: widths of the hidden layers of the network that makes them of the context.
        device, dtype: of the parameters.

    Shape: z [..., features] -> log densities [...], -inf outside [-pi, pi].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende et al., "Normalizing flows on tori and spheres" (2020, arXiv:2002.02428); Mardia
    and Jupp, "Directional statistics" (2000, doi:10.1002/9780470316979), section 3.5.4.

    >>> import math, torch
    >>> from bslfast.flows import Flow, SplineCoupling, VonMisesBase
    >>> flow = Flow(SplineCoupling(2, bound=math.pi, tails="circular"), VonMisesBase(2))
    >>> flow.log_prob(torch.tensor([[0.0, 3.0], [0.0, 4.0]])).detach()
    tensor([-4.1376,    -inf])
    """

    @property
    def support(self) -> constraints.Constraint:
        return between(-math.pi, math.pi, closed=True)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """See :meth:`Base.log_prob`."""
        check_inputs(self, "z", z, context)
        loc, log_concentration = self._parameters_at(z, context)
        check_like(self, "z", z, loc)
        concentration = log_concentration.exp()

        def density(inside: Tensor) -> tuple[Tensor, Tensor]:
            return inside, BF.von_mises_log_prob(inside, loc, concentration)

        return mapped_inside(density, z, self.support)[1]

    def rsample(self, like: Tensor, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """See :meth:`Base.rsample`."""
        loc, log_concentration = self._parameters_at(like, context)
        law = VonMises(loc, log_concentration.exp(), validate_args=False).expand(like.shape)
        return law.seeded_rsample((), seed)
