"""What the variational and the deterministic autoencoder share."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks, programs
from bslfast import functional as BF
from bslfast.flows.transform import without_draws
from bslfast.functional._op import is_traced, runs_eagerly
from bslfast.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from bslfast.likelihoods.base import observed
from bslfast.vae.categories import Categories

_PLAIN = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
}
# The scale that the decoder gives is a variance's logarithm for a law that has variances.
_WITH_SCALE = {
    "normal": (Normal, "log_var"),
    "laplace": (Laplace, "log_scale"),
    "student_t": (StudentT, "log_scale"),
}
# Up to so many products of a weight and a row, one node of the graph is faster than ops: larger
# ones are torch's own matrix products and little else.
_ONE_NODE = 2**27
# What bounds and likelihoods call.
_METHODS = (
    "terms",
    "encode",
    "log_likelihood",
    "_by_ops",
    "_elbo_by_ops",
    "_elbo_and_kl",
    "_terms",
    "_parameters_of",
    "_check_x",
    "_encoded",
    "_decoded",
    "_latent_of",
    "_log_likelihood",
    "_likelihood_in_parts",
    "_bound_by_ops",
    "_likelihood_of",
    "_divided",
    "_of_codes",
    "_observed",
)
# Those of them that make log p(x | z), of which a subclass may have its own.
_OF_LIKELIHOOD = ("_log_likelihood", "_likelihood_in_parts", "_likelihood_of", "_divided")
LIKELIHOODS = tuple(dict.fromkeys(("bernoulli", *_WITH_SCALE, *_PLAIN, "categorical")))


class Decoding(nn.Module):
    """An encoder, a decoder, and what the decoder's outputs mean."""

    #: Counted when it is called for the first time.
    _n_weights: int | None = None

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str | Likelihood,
        scale: float | str,
        latent: int | None,
        classes: int | None,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(
                    f"{name}: expected a torch.nn.Module, got {_checks.describe(module)}"
                )
        # First, as its parameter comes first in the order of parameters.
        self.likelihood = _likelihood(likelihood, scale, classes)
        if likelihood is not self.likelihood:
            like = next(encoder.parameters(), next(decoder.parameters(), torch.empty(())))
            self.likelihood.to(device=like.device, dtype=like.dtype)
        self.encoder = encoder
        self.decoder = decoder
        self._given_latent = None if latent is None else _checks.integer("latent", latent)
        self.latent = self._given_latent

    def reset_parameters(self) -> None:
        """Set the learned scale, if there is one, to 1; encoder and decoder are left alone."""
        reset = getattr(self.likelihood, "reset_parameters", None)
        if reset is not None:
            reset()

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the mean of p(x | z): probabilities, locs or rates.

        With a categorical likelihood they are the classes' probabilities, of the shape of one-hot
        rows.

        Args:
            z: codes [batch, code].
            context: what the decoder takes beside them, [batch, ...]; None if it takes nothing.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        size = None if self.latent is None else self._code_size(self.latent)
        what = f"[batch, {'latent' if size is None else size}]"
        _checks.floating("z", z, 2, what)
        if size is not None and z.shape[1] != size:
            raise ValueError(f"z: expected shape {what}, as codes have, got {_checks.describe(z)}")
        if context is not None:
            check_context(context, "z", z)
        outputs = self._decoded(z, context)
        return self.likelihood.mean(outputs, dim=1)

    def interpolate(
        self,
        x: Tensor,
        to: Tensor,
        n: int = 8,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        to_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the means of p(x | z) on the lines between codes, [n, batch, ...].

        Args:
            x, to: examples [batch, ...]: where the lines begin and end.
            n: number of points on a line, its ends among them, at least 2.
            context: of both, [batch, ...].
            mask, to_mask: where values of ``x`` and of ``to`` are missing, as in :meth:`VAE.terms`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        n = _checks.integer("n", n, 2)
        if self._checked_kind(to, "to").shape != self._checked_kind(x, "x").shape:
            raise ValueError(
                f"to: expected the shape of x, {tuple(x.shape)}, got {_checks.describe(to)}"
            )
        x, to = self._complete(x, mask), self._complete(to, to_mask, "to")
        self.likelihood.check(to, "to")
        start, end = self.codes(x, context), self.codes(to, context)
        steps = torch.linspace(0, 1, n, dtype=start.dtype, device=start.device)
        codes = torch.lerp(start, end, steps[:, None, None]).flatten(0, 1)
        if context is not None:
            context = context.expand(n, *context.shape).flatten(0, 1)
        images: Tensor = self.decode(codes, context).unflatten(0, (n, -1))
        return images

    def _code_size(self, latent: int) -> int:
        """How many numbers a code of so many latent dimensions has."""
        return latent

    def _checked_kind(self, x: Tensor, name: str) -> Tensor:
        """``x`` if it has a dtype that the likelihood takes."""
        if isinstance(self.likelihood, Categories):
            return _checks.tensor(name, x)
        return _checks.floating(name, x)

    def _observed(self, x: Tensor, mask: Tensor | None, name: str = "x") -> Tensor:
        """What the encoder sees of x: of labels one-hot rows, and a filler for missing values."""
        likelihood = self.likelihood
        mask_name = "mask" if name == "x" else f"{name}_mask"
        if isinstance(likelihood, Categories):
            like = next(self.parameters(), torch.empty(()))
            return likelihood.one_hot(name, x, mask, like.dtype, mask_name)
        if mask is None:
            return x
        x = _checks.floating(name, x)
        return observed(name, x, mask, likelihood.filler, mask_name)

    def _complete(self, x: Tensor, mask: Tensor | None, name: str = "x") -> Tensor:
        """:meth:`_observed`, which raises where NaN is left (in eager mode on the CPU).

        A bound would be NaN too, and say so. A picture would only be empty.
        """
        x = self._observed(x, mask, name)
        looked_at = isinstance(x, Tensor) and x.device.type == "cpu" and x.is_floating_point()
        if looked_at and runs_eagerly([x]) and (missing := int(x.detach().isnan().sum())):
            raise ValueError(
                f"{name}: expected no NaN, or a mask that is False where a value is missing, got "
                f"{missing} of {x.numel()} values NaN"
            )
        return x

    def codes(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the code that stands for each example, [batch, code]."""
        raise NotImplementedError

    def _decoded(self, z: Tensor, context: Tensor | None) -> Tensor:
        """The decoder's outputs for codes [n, code]: as many as the likelihood divides."""
        return self._divided(_called("decoder", self.decoder, z, context))

    def _divided(self, outputs: Any) -> Tensor:
        """What a decoder gives, if the likelihood can divide it."""
        if not isinstance(outputs, Tensor):
            raise TypeError(f"decoder: expected a tensor, got {_checks.describe(outputs)}")
        n = len(self.likelihood.parts)
        if n > 1 and (outputs.dim() < 2 or outputs.shape[1] % n):
            parts = " and ".join(dict.fromkeys(self.likelihood.parts))
            number = "an even number" if n == 2 else f"a multiple of {n}"
            raise ValueError(
                f"decoder: expected outputs with {parts} side by side on dimension 1, {number} in "
                f"all, got shape {tuple(outputs.shape)}"
            )
        return outputs

    def _log_likelihood(
        self, x: Tensor, z: Tensor, context: Tensor | None, mask: Tensor | None = None
    ) -> Tensor:
        """log p(x | z) of x [batch, ...] for codes [..., batch, code], of shape [..., batch]."""
        if context is None and mask is None:
            # With gradients it would run the network twice, or is no faster.
            found = None if torch.is_grad_enabled() else self._decoder_at_once(x, z)
            if found is not None:
                _, log = programs.forward(found, z, x.flatten(1), value=False)
                assert log is not None
                return log
        return self._likelihood_in_parts(x, z, context, mask)

    def _likelihood_in_parts(
        self, x: Tensor, z: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """:meth:`_log_likelihood` by decoder and likelihood."""
        codes = z
        if z.dim() > 2:
            codes = z.flatten(0, -2)
            if context is not None:
                context = context.expand(*z.shape[:-2], *context.shape).flatten(0, z.dim() - 2)
        return self._likelihood_of(_called("decoder", self.decoder, codes, context), x, z, mask)

    def _likelihood_of(self, outputs: Any, x: Tensor, z: Tensor, mask: Tensor | None) -> Tensor:
        """:meth:`_log_likelihood` of what the decoder gives for the codes."""
        likelihood, shape = self.likelihood, x.shape
        n, rows = len(likelihood.parts), math.prod(z.shape[:-1])
        if isinstance(likelihood, Categories):
            n = 1  # x are one-hot rows
        wanted = (rows, *shape[1:]) if n == 1 else (rows, n * shape[1], *shape[2:])
        if not isinstance(outputs, Tensor) or outputs.dtype is not x.dtype:
            outputs = _checks.operand("decoder", self._divided(outputs))
        elif outputs.shape != wanted:
            outputs = self._divided(outputs)
        if outputs.shape != wanted:
            raise ValueError(
                f"decoder: expected outputs of shape {wanted} for x of shape "
                f"{tuple(shape)}, got {tuple(outputs.shape)}"
            )
        if z.dim() > 2:
            outputs = outputs.reshape(*z.shape[:-1], *outputs.shape[1:])
        return likelihood._log_prob(outputs, x, mask)

    def _bound_by_ops(
        self, z: Tensor, rows: Tensor, added: Tensor, *, shape: torch.Size
    ) -> tuple[Tensor]:
        log_likelihood = self._likelihood_in_parts(rows.view(shape), z, None, None)
        return (BF.iwae_bound(log_likelihood + added, dim=0),)

    def _bound(self, x: Tensor, z: Tensor, added: Tensor) -> tuple[Tensor, Tensor] | None:
        """Bounds of x by codes [samples, batch, code], and the samples' normalised weights.

        They are those of log p(x | z) and what is ``added`` to it. One node of the graph; None
        where that takes ops.
        """
        if not torch.is_grad_enabled() or x.requires_grad or len(z) > programs.MOST_SAMPLES:
            return None
        # A posterior or a prior of one's own may give others, which ops broadcast or refuse.
        if z.dim() != 3 or added.shape != z.shape[:-1] or added.dtype is not z.dtype:
            return None
        found = self._decoder_at_once(x, z) if runs_eagerly([added]) else None
        if found is None:
            return None
        return programs.bound(
            found, (self, "_bound_by_ops", {"shape": x.shape}), z, x.flatten(1), added
        )

    def _decoder_at_once(self, x: Tensor, z: Tensor) -> programs.Lowered | None:
        """The program of log p(x | z) for codes z [batch, code] or of samples, if it can run."""
        if z.dim() > 3 or not programs.are_on() or torch.compiler.is_compiling() or not x.numel():
            return None
        if isinstance(self.likelihood, Categories) or not z.numel():
            return None
        if z.dim() < 2 or z.shape[-2] != x.shape[0]:  # ops refuse them
            return None
        sizes = z.shape[-1], math.prod(x.shape[1:])
        if programs.is_known_not_to_run(self, "likelihood", sizes[0]):
            return None
        rows = x.flatten(1)
        found = programs.runnable(self, "likelihood", decoder_steps, sizes, z, rows)
        if found is not None and found.seen != x.shape[1:]:
            # Ops raise for shapes that the decoder does not give.
            with torch.no_grad():
                self._likelihood_in_parts(x, z if z.dim() == 2 else z[:1], None, None)
            found.seen = x.shape[1:]
        return found

    def _at_once(
        self, x: Tensor, by_ops: str, seed: int | Tensor | None = None, **settings: Any
    ) -> Tensor | None:
        """What a call for x alone gives, [batch], as one node of the graph; None if by ops.

        ``by_ops`` is the method that does the same by ops, with these ``settings``.
        """
        if not programs.are_on() or torch.compiler.is_compiling():
            return None
        if not isinstance(x, Tensor) or x.ndim < 2 or isinstance(self.likelihood, Categories):
            return None
        # Before anything is looked at, which large networks would pay for nothing. A tile has 32
        # rows, if there are as many or not.
        if self._products_of_a_row() * max(32, len(x)) > _ONE_NODE or not x.numel():
            return None
        if programs.is_known_not_to_run(self, "objective", math.prod(x.shape[1:])):
            return None
        rows = x if x.ndim == 2 else x.flatten(1)
        found = self._program(rows)
        if found is None:
            return None
        seeds: programs.Seeds = [], []
        if found.draws.seeds_per_call:
            settings["seed"] = int(_checks.seed(seed, x.device)) % 2**64
            seeds = [settings["seed"]], [0]
        if found.seen != x.shape[1:]:
            # Ops raise for shapes that the networks do not give. Their noise is not used.
            check = {**settings, "seed": 0} if "seed" in settings else settings
            with torch.no_grad():
                getattr(self, by_ops)(rows, None, shape=x.shape, **check)
            # That may have found the number of latent dimensions, which a program depends on.
            found = self._program(rows)
            if found is None:
                return None
            found.seen = x.shape[1:]
        self._check_x(x)
        method = self, by_ops, {"shape": x.shape, **settings}
        return programs.call(found, method, rows, None, value=False, seeds=seeds)[1]

    def _program(self, rows: Tensor) -> programs.Lowered | None:
        sizes = rows.shape[1], 0
        return programs.runnable(self, "objective", objective_steps, sizes, rows, None)

    def _products_of_a_row(self) -> float:
        """About how many weights there are; infinity where they are not known yet."""
        if self._n_weights is None:
            parameters = list(self.parameters())
            if any(map(nn.parameter.is_lazy, parameters)):
                return math.inf
            self._n_weights = sum(map(Tensor.numel, parameters))
        return self._n_weights

    def _check_x(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        _checks.floating("x", x)
        if x.dim() < 2:
            raise ValueError(f"x: expected shape [batch, ...], got {_checks.describe(x)}")
        likelihood = self.likelihood
        targets = likelihood.targets
        if targets is not None and x.shape[1:] != (targets,):
            raise ValueError(
                f"x: expected shape [batch, {targets}] for {likelihood}, got "
                f"{_checks.describe(x)}; a likelihood with targets=None takes any"
            )
        if context is not None:
            check_context(context, "x", x)
        likelihood.check(x, "x")
        return x

    def _encoded(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The encoder's output for a checked x, as wide as :meth:`_latent_of` says."""
        return self._of_codes(_called("encoder", self.encoder, x, context), x)

    def _of_codes(self, outputs: Any, x: Tensor) -> Tensor:
        """What an encoder gives for x, if it is that."""
        if not isinstance(outputs, Tensor):
            raise TypeError(f"encoder: expected a tensor, got {_checks.describe(outputs)}")
        if outputs.dim() != 2 or outputs.shape[0] != x.shape[0]:
            raise ValueError(
                f"encoder: expected an output of shape [{x.shape[0]}, ...], "
                f"got {tuple(outputs.shape)}"
            )
        latent = self._latent_of(outputs)
        known = self.latent
        if known is None and not torch.compiler.is_compiling():
            self.latent = latent
        if known is not None and latent != known:
            raise ValueError(
                f"encoder: expected an output for {known} latent dimensions, got one for "
                f"{latent}, of shape {tuple(outputs.shape)}"
            )
        return outputs

    def _latent_of(self, outputs: Tensor) -> int:
        """The number of latent dimensions that an encoder's outputs [batch, ...] are for."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # Where states had the learned scale before it was the likelihood's.
        if prefix + "log_scale" in state_dict:
            state_dict[prefix + "likelihood.raw_scale"] = state_dict.pop(prefix + "log_scale")
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        """Show the number of latent dimensions that was given."""
        return f"latent={self._given_latent}"


def objective_steps(builder: programs.Builder, model: Decoding) -> programs.Lanes:
    """The steps of what :meth:`Decoding._at_once` gives."""
    programs.lower(builder, model)
    return []


def decoder_steps(builder: programs.Builder, model: Decoding) -> programs.Lanes:
    """The steps of log p(x | z): rows are codes, whose context is x."""
    kind = type(model)
    if any(getattr(kind, name) is not getattr(Decoding, name) for name in _OF_LIKELIHOOD):
        raise programs.CannotLower(f"a {kind.__name__} has a likelihood of codes of its own")
    looked_at(builder, model)
    outputs = programs.lower(builder, model.decoder, builder.x)
    programs.lower(builder, model.likelihood, outputs, builder.context)
    return without_draws(builder, [])


def looked_at(builder: programs.Builder, model: Decoding, *settings: str) -> None:
    """Note that steps depend on a model and its likelihood, see :meth:`Builder.looked_at`."""
    builder.looked_at(model, *settings, methods=_METHODS)
    # It is looked at again by what lowers it.
    builder.looked_at(model.likelihood, methods=("check", "split", "_log_prob", "_density"))
    builder.any_shape = True


def check_context(context: Tensor, name: str, x: Tensor) -> None:
    """Raise unless it goes with the rows of ``x``."""
    _checks.floating("context", context)
    if context.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"context: expected shape [{x.shape[0]}, ...], as {name} has so many rows, got "
            f"{_checks.describe(context)}"
        )


def _called(name: str, network: nn.Module, x: Tensor, context: Tensor | None) -> Any:
    given = (x,) if context is None else (x, context)
    # Asked of the class once. The compiler would go through all of it, with a warning.
    kind: Any = type(network)
    if not is_traced() and not takes(kind, len(given)):
        wanted, number = ("a tensor", "two") if context is None else ("None", "one")
        raise TypeError(
            f"context: expected {wanted}, as the {name}, a {kind.__name__}, takes {number}, got "
            f"{_checks.describe(context)}"
        )
    return network(*given)


@functools.cache
def takes(kind: Any, n: int) -> bool:
    """Whether modules of a class are called with ``n`` tensors; True if they do not say."""
    try:
        signature = inspect.signature(kind.forward)
    except (AttributeError, TypeError, ValueError):  # a scripted one, say
        return True
    try:
        signature.bind(*[None] * (1 + n))
    except TypeError:
        return False
    return True


def _likelihood(
    likelihood: str | Likelihood, scale: float | str, classes: int | None
) -> Likelihood:
    """The likelihood of that name, or the one given, with what the other arguments say."""
    if not isinstance(likelihood, Likelihood):
        _checks.choice("likelihood", likelihood, LIKELIHOODS)
    if likelihood == "categorical":
        if classes is None:
            raise ValueError(
                "classes: expected their number, at least 2, for likelihood 'categorical', got None"
            )
        likelihood = Categories(classes)
    elif classes is not None:
        what = repr(likelihood) if isinstance(likelihood, str) else "that is given"
        raise ValueError(f"classes: expected None for a likelihood {what}, got {classes!r}")
    if isinstance(likelihood, Likelihood):
        if isinstance(likelihood, Categorical):
            # The labels of an example have any shape here.
            likelihood = Categories(likelihood.classes)
        if scale != "learned":
            beside = "a categorical one" if isinstance(likelihood, Categories) else "a Likelihood"
            raise ValueError(f"scale: expected none beside {beside}, got {scale!r}")
        return likelihood
    if likelihood in _PLAIN:
        if scale != "learned":
            raise ValueError(f"scale: expected none for likelihood {likelihood!r}, got {scale!r}")
        return _PLAIN[likelihood](None)
    family, of_decoder = _WITH_SCALE[likelihood]
    if isinstance(scale, str):
        _checks.choice("scale", scale, ("learned", "decoder"))
    if scale == "decoder":
        return family(None, scale="outputs", parametrization=of_decoder)
    return family(None, scale=scale, parametrization="log_scale")
