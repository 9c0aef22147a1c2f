"""The mixin that makes a Bayesian layer of one of torch."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._torch import PARAMETERS, is_saved, own_buffers, own_modules, own_parameters
from bslfast.nn import posteriors, priors
from bslfast.nn.estimators import Estimator, WeightSample, estimator_of
from bslfast.nn.many_draws import ManyDraws
from bslfast.nn.module import BayesianModule, Entry
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior
from bslfast.nn.weight import Weight, divergence_of

_Kind = TypeVar("_Kind", Posterior, Prior)
# Arguments of torch's constructors that are sizes.
_SIZES = (
    *("in_features", "out_features", "in_channels", "out_channels", "groups"),
    *("num_embeddings", "embedding_dim", "input_size", "hidden_size", "num_layers"),
    *("embed_dim", "num_heads"),
)
# Arguments of theirs that say whether there is something.
_FLAGS = (
    *("bias", "batch_first", "bidirectional", "elementwise_affine"),
    *("add_bias_kv", "add_zero_attn", "scale_grad_by_freq"),
)


class _Priors(dict[str, Prior]):
    """The priors of a layer by name. A prior that is a module is a module of the layer.

    Args:
        modules: the layer's own dict of its modules.
        priors: the first ones; others may take their places.
    """

    def __init__(self, modules: dict[str, nn.Module | None], priors: Mapping[str, Prior]) -> None:
        super().__init__(priors)
        self._parts = modules
        for name, prior in priors.items():
            self[name] = prior

    def __setitem__(self, name: str, prior: Prior) -> None:
        if name not in self:
            raise ValueError(f"priors: expected a name among {', '.join(self)}, got {name!r}")
        super().__setitem__(name, prior)
        if isinstance(prior, nn.Module):
            self._parts[f"{name}_prior"] = prior
        else:
            self._parts.pop(f"{name}_prior", None)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._parts, dict(self))


class _Posteriors(dict[str, Posterior]):
    """The posteriors of a layer by name, each as :meth:`Posterior.of_layer` gives it.

    Args:
        input_dim, groups: what that asks for.
        posteriors: the first ones; others may take their places.
    """

    def __init__(
        self, input_dim: int, groups: int, posteriors: Mapping[str, Posterior] | None = None
    ) -> None:
        super().__init__()
        self._of = input_dim, groups
        for name, posterior in (posteriors or {}).items():
            self[name] = posterior

    def __setitem__(self, name: str, posterior: Posterior) -> None:
        super().__setitem__(name, posterior.of_layer(*self._of))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._of, dict(self))


class BayesianLayer(BayesianModule):
    """A layer of torch whose parameters are drawn: ``class BayesConv2d(BayesianLayer, Conv2d)``.

    Each parameter of the torch class, say ``weight``, gives way to those of its posterior,
    ``weight_loc`` and ``weight_raw_scale``. A forward pass draws a weight and calls the torch
    class's own forward, which finds the sample where the parameter was.

    Args:
        *args, **kwargs: as of the torch class.
        posterior: what the weights are drawn from, see :mod:`bslfast.nn.posteriors`; one for all,
            or by name (``{"bias": Deterministic()}``), where those that are not named have the
            default, ``Normal(parametrization, init_scale)``. One of all weights jointly
            (``FullCovariance()``) leaves none to others, and has one prior.
        prior: what they diverge from, see :mod:`bslfast.nn.priors`; likewise, the default being
            ``Normal(prior_loc, prior_scale)``. One with tensors is then a module of the layer, as
            ``weight_prior``.
        prior_loc, prior_scale: of the default prior.
        init_scale: standard deviation of the default posterior at the start.
        parametrization: of its scale, as in :func:`bslfast.functional.normal_rsample`.
        estimator: how outputs are drawn: "weight_sample", "local_reparametrization", "flipout" or
            an Estimator, see :func:`bslfast.nn.set_estimator`.

    Attributes:
        estimator: the Estimator. Another, or its name, may be put there.
        posteriors, priors: those of each weight, by its name, or one under ``"joint"``. To change
            one, put another there; a posterior only by one of the same parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch, bslfast
    >>> class BayesBilinear(bslfast.nn.BayesianLayer, torch.nn.Bilinear):
    ...     pass
    >>> layer = BayesBilinear(3, 4, 2, prior_scale=0.5)
    >>> layer(torch.ones(5, 3), torch.ones(5, 4)).shape, layer.kl().shape
    (torch.Size([5, 2]), torch.Size([]))
    """

    _estimator: Estimator = WeightSample()
    posteriors: dict[str, Posterior]
    priors: dict[str, Prior]
    _keys: dict[str, tuple[str, ...]]  # of each weight's parameters
    _shapes: dict[str, torch.Size]  # of the torch class's parameters
    _joint = False
    #: The dimension of the weights that counts inputs.
    input_dim: int = 1
    # Names of parameters without a dimension of inputs, though they may have several dimensions.
    _without_inputs: frozenset[str] = frozenset()

    def __init__(
        self,
        *args: Any,
        posterior: Posterior | Mapping[str, Posterior] | None = None,
        prior: Prior | Mapping[str, Prior] | None = None,
        prior_loc: float = 0.0,
        prior_scale: float = 1.0,
        init_scale: float = 0.02,
        parametrization: str = "softplus",
        estimator: str | Estimator = "weight_sample",
        **kwargs: Any,
    ) -> None:
        torch_init: Any = super().__init__
        given = inspect.signature(torch_init).bind(*args, **kwargs)
        self.check_arguments({**given.arguments, **given.kwargs})
        # Before there is a layer: numbers may be wrong.
        settings = Settings(
            *(posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator)
        )
        # torch's recurrent layers take no integers of numpy.
        sizes = {name: int(kwargs[name]) for name in _SIZES if name in kwargs}
        torch_init(*args, **{**kwargs, **sizes})
        self.make_bayesian(settings)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the arguments of the torch class and those of :class:`BayesianLayer` together."""
        super().__init_subclass__(**kwargs)
        torch_class = _torch_class(cls)
        init: Any = cls.__init__
        shown = list(inspect.signature(init).parameters.values())[1:]
        if init is BayesianLayer.__init__ and torch_class is not nn.Module:
            shown = [p for p in shown if p.kind is p.KEYWORD_ONLY]
            shown += inspect.signature(torch_class).parameters.values()
            shown.sort(key=lambda p: p.kind)  # as Python wants them
        cls.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments of the constructor that are wrong."""
        for name in _SIZES:
            if name in given:
                _checks.integer(name, given[name])
        for name in _FLAGS:
            if name in given:
                _checks.flag(name, given[name])
        _checks.factory(given.get("device"), given.get("dtype"))

    def make_bayesian(self, settings: Settings) -> None:
        """Put the parameters of the posteriors in the place of those of the torch class.

        The means are what these were; all else of a posterior is at its start.
        """
        for name, value in self.__dict__.items():
            if isinstance(value, list) and any(isinstance(t, nn.Parameter) for t in value):
                raise TypeError(
                    f"{type(self).__name__}: expected a class of torch that finds its parameters "
                    f"by their names, got one that keeps them in {name}"
                )
        posterior, prior = settings.by_name(own_parameters(self))
        given = own_parameters(self).copy()
        shapes = {
            name: _checks.operand(name, p).shape for name, p in given.items() if p is not None
        }
        self._shapes, first = shapes, next(iter(shapes), "")
        for name, shape in shapes.items():
            drops = isinstance(posterior[name], posteriors.MCDropout) and len(shape) > 1
            if drops and name in self._without_inputs:
                raise ValueError(
                    f"posterior: expected another than MCDropout for {name} of a "
                    f"{type(self).__name__}, which has no inputs to drop, got {posterior[name]}"
                )
        self._joint = any(posterior[name].joint for name in shapes)
        groups = {name: [name] for name in given}
        if self._joint:
            for what, kinds in (("posterior", posterior), ("prior", prior)):
                if any(kinds[name] != kinds[first] for name in shapes):
                    raise ValueError(
                        f"{what}: expected one for all weights, as the posterior is joint, got "
                        f"{kinds}"
                    )
            groups = {"joint": list(given)}
        of_layer = self.input_dim, getattr(self, "groups", 1)
        self.posteriors = _Posteriors(*of_layer)
        self._keys, chosen = {}, {}
        for key, names in groups.items():
            one, prefix = (first, "") if self._joint else (key, f"{key}_")
            kind, its_prior = posterior[one].of_layer(*of_layer), prior[one]
            means = [self._make_mean(name, kind.names[0]) for name in names]
            others = [f"{prefix}{p}" for p in kind.names[1:]]
            there = [mean for mean in means if mean is not None]
            if not there:
                for other in others:
                    self.register_parameter(other, None)
                continue
            loc = torch.cat([m.flatten() for m in there]) if self._joint else there[0]
            learned = any(mean.requires_grad for mean in there)
            for other, value in zip(others, kind.allocate(loc.detach()), strict=True):
                self.register_parameter(other, nn.Parameter(value, learned))
            its_names = [f"{name}_{kind.names[0]}" for name in names if name in shapes]
            self._keys[key] = (*its_names, *others)
            self.posteriors[key], chosen[key] = kind, its_prior
            if isinstance(its_prior, nn.Module):
                its_prior.to(loc.device, loc.dtype)
        self.priors = _Priors(own_modules(self), chosen)
        for weight in self.weights():
            divergence_of(weight)  # that there is one
            with torch.no_grad():
                weight.posterior.reset(weight.parameters)
        self.estimator = settings.estimator

    def share(self, name: str, other: BayesianLayer, its_name: str) -> None:
        """Make a weight one with that of another layer, which keeps its parameters.

        Raises:
            ValueError: they have different posteriors, or one of all weights jointly.
        """
        mine, its = (x.posteriors.get(n) for x, n in ((self, name), (other, its_name)))
        if mine is None or mine != its:
            raise ValueError(
                f"posterior: expected one for the weight that layers share, as {name} and "
                f"{its_name}, got {self.posteriors} and {other.posteriors}"
            )
        for key, its_key in zip(self._keys[name], other._keys[its_name], strict=True):
            own_parameters(self)[key] = own_parameters(other)[its_key]
        self.posteriors[name], self.priors[name] = (
            other.posteriors[its_name],
            other.priors[its_name],
        )

    @property
    def estimator(self) -> Estimator:
        """How outputs are drawn."""
        return self._estimator

    @estimator.setter
    def estimator(self, value: str | Estimator) -> None:
        found = estimator_of(value)
        found.check(self)
        self._estimator = found

    def _make_mean(self, name: str, suffix: str) -> nn.Parameter | None:
        """Put a mean in the place of a parameter of the torch class."""
        parameter = own_parameters(self)[name]
        if parameter is not None:  # else it stays: methods of the torch class ask for it
            del own_parameters(self)[name]
            parameter = nn.Parameter(parameter.detach(), parameter.requires_grad)
        self.register_parameter(f"{name}_{suffix}", parameter)
        return parameter

    def weights(self) -> list[Weight]:
        """The weights in the order of the torch class's parameters, without those that are None.

        One of all of them if the posterior is joint.
        """
        # Past __getattr__ and without f-strings, which small models would notice at every step; but
        # a parametrization of torch.nn.utils is no parameter.
        own, prior, weights = self.__dict__[PARAMETERS], self.priors, []
        for name, posterior in self.posteriors.items():
            parameters: tuple[Any, ...] = ()
            for key in self._keys[name]:
                value = own.get(key)
                parameters += (getattr(self, key) if value is None else value,)
            weights.append(Weight(posterior, prior[name], parameters))
        return weights

    def made_of(self) -> tuple[list[Entry], list[dict[str, Any]]] | None:
        """See :meth:`bslfast.nn.BayesianModule.made_of`."""
        if type(self).weights is not BayesianLayer.weights:
            return None
        own, parameters = vars(self), own_parameters(self)
        entries: list[Entry] = [(own, "weights", own.get("weights"))]
        names = (PARAMETERS, "posteriors", "priors", "_keys")
        entries += [(own, name, own[name]) for name in names]
        for name, posterior in self.posteriors.items():
            entries += [(self.posteriors, name, posterior), (self.priors, name, self.priors[name])]
            entries += [(parameters, key, parameters.get(key)) for key in self._keys[name]]
        # Else it is a parametrization, or lent for a call.
        if any(own is parameters and type(p) is not nn.Parameter for own, _, p in entries):
            return None
        return entries, [self.posteriors]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the means as the torch class draws its parameters; put all else to its start."""
        if "posteriors" not in self.__dict__:  # inside the torch class's constructor
            torch_self: Any = super()
            torch_self.reset_parameters()
            return
        self._reset_means()
        for weight in self.weights():
            weight.posterior.reset(weight.parameters)
            if isinstance(weight.prior, priors.NormalModule):
                weight.prior.reset_parameters()

    def _reset_means(self) -> None:
        """Draw the means as the torch class draws its parameters."""
        self._with(self._means()).reset_parameters()

    def forward(
        self,
        *inputs: Any,
        seed: int | Tensor | None = None,
        drawn: tuple[Tensor, ...] | None = None,
        **options: Any,
    ) -> Any:
        """Outputs for one draw of the weights, as the torch class returns them.

        Args:
            *inputs, **options: as of the torch class.
            seed: as in :func:`bslfast.functional.normal_rsample`.
            drawn: samples of :meth:`weights` to use, if there are any already.
        """
        if drawn is not None:
            self.check_drawn(drawn)
        elif seed is None:
            drawn = self.drawn
        if drawn is None:
            return self.estimator(self, *inputs, seed=seed, **options)
        return self.function(drawn, *inputs, **options)

    def function(self, drawn: tuple[Tensor, ...], *inputs: Any, **options: Any) -> Tensor:
        """What the torch class computes with these tensors as its parameters."""
        self.check_inputs(*inputs, **options)
        outputs: Tensor = self._with(self.tensors(drawn)).forward(*inputs, **options)
        return outputs

    def check_drawn(self, drawn: Any) -> None:
        """Raise TypeError or ValueError for what are no samples of :meth:`weights`."""
        shapes = [list(weight.loc.shape) for weight in self.weights()]
        what = f"a tuple of samples of weights(), of shapes {' and '.join(map(str, shapes))}"
        if not isinstance(drawn, tuple) or not all(isinstance(t, Tensor) for t in drawn):
            raise TypeError(f"drawn: expected {what}, got {_checks.describe(drawn)}")
        if [list(t.shape) for t in drawn] != shapes:
            got = " and ".join(str(list(t.shape)) for t in drawn)
            raise ValueError(f"drawn: expected {what}, got {got or 'none'}")

    def tensors(self, drawn: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Samples of :meth:`weights` as parameters of the torch class, behind any dimensions."""
        if not self._joint:
            return drawn
        (flat,), shapes = drawn, self._shapes.values()
        parts = flat.split([shape.numel() for shape in shapes], -1)
        return tuple([p.view(p.shape[:-1] + s) for p, s in zip(parts, shapes, strict=True)])

    @torch.no_grad()
    def centre_priors(self, delta: float) -> None:
        """Make the means as they are now those of the priors, and the scales relative to them.

        The prior of each weight becomes N(its mean m, scale of its prior before), the scale of its
        posterior ``delta |m|``, but at least 1e-6.

        Args:
            delta: > 0.

        Raises:
            TypeError, ValueError: ``delta`` is not a positive number; a prior that is not
                :class:`bslfast.nn.priors.Normal` around 0.

        Source: Krishnan, Subedar and Tickoo, "Specifying weight priors in Bayesian deep neural
        networks with empirical Bayes" (2020, arXiv:1906.05323).

        >>> import bslfast
        >>> layer = bslfast.nn.BayesLinear(3, 2)
        >>> layer.centre_priors(0.1)
        >>> bool((layer.priors["weight"].loc == layer.weight_loc).all())
        True
        """
        delta = _checks.number("delta", delta, above=0.0)
        for prior in self.priors.values():
            if not isinstance(prior, priors.Normal) or prior.loc != 0.0:
                raise ValueError(f"prior: expected Normal around 0 to be centred, got {prior}")
        for name, weight in zip(list(self.priors), self.weights(), strict=True):
            assert isinstance(weight.prior, priors.Normal)
            centred = weight._replace(prior=priors.CentredNormal(weight.loc, weight.prior.scale))
            divergence_of(centred)  # that there is one
            self.priors[name] = centred.prior
            scale = (delta * weight.loc.abs()).clamp_min(1e-6)
            weight.posterior.set_scale(weight.parameters, scale)

    def _means(self) -> list[Tensor]:
        """Those of the torch class's parameters, without those that are None."""
        return [getattr(self, f"{name}_loc") for name in self._shapes]

    def check_inputs(self, *inputs: Any, **options: Any) -> None:
        """Raise TypeError or ValueError for inputs that the layer does not take."""

    def sample_outputs(self, x: Tensor, n_samples: int, *, per_draw: bool = False) -> Tensor:
        """Outputs for ``n_samples`` draws of the weights, or for :attr:`drawn` if that is there.

        Args:
            x: the input of every draw.
            n_samples: number of draws.
            per_draw: whether each draw has an input of its own: x [n_samples, ...].

        Returns:
            [n_samples, ...], each as :meth:`forward` returns it.

        Raises:
            TypeError, ValueError: a wrong input or number.
        """
        n_samples = _checks.integer("n_samples", n_samples)
        x = _checks.tensor("x", x)
        if per_draw and (x.dim() == 0 or len(x) != n_samples):
            raise one_for_each(x, n_samples)
        draws = ManyDraws()
        outputs = []
        for i in range(n_samples):
            drawn = self.drawn
            if drawn is None:
                drawn = tuple([samples[0] for samples in draws.of(self.weights(), 1)])
            outputs.append(self.output(drawn, x[i] if per_draw else x))
        draws.remember((self,))
        return torch.stack(outputs)

    def output(self, drawn: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """The output for one input as a tensor, whatever else :meth:`function` returns."""
        return self.function(drawn, x)

    def deterministic_twin(self) -> nn.Module:
        """The torch class's own layer, with copies of the means as its parameters."""
        torch_class: Any = _torch_class(type(self))
        twin: nn.Module = torch_class.__new__(torch_class)
        nn.Module.__init__(twin)
        ours = {"posteriors", "priors", "drawn", "training", *twin.__dict__}
        ours |= {"_keys", "_shapes", "_joint", "_estimator", "_remembered"}
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ours})
        means = dict(zip(self._shapes, self._means(), strict=True))
        for key in own_parameters(self):
            name = key.removesuffix("_loc")
            if name in means:
                loc = means[name]
                mean = nn.Parameter(loc.detach().clone(), loc.requires_grad)
                twin.register_parameter(name, mean)
            elif name != key:
                twin.register_parameter(name, None)
        for name, buffer in own_buffers(self).items():
            kept = is_saved(self, name)
            twin.register_buffer(name, None if buffer is None else buffer.clone(), kept)
        return twin.train(self.training)

    def _with(self, tensors: Sequence[Tensor]) -> Any:
        """The layer as one of the torch class whose parameters are these tensors."""
        return super(BayesianLayer, self._stand_in(tensors))

    def _stand_in(self, tensors: Sequence[Tensor]) -> Any:
        """A shallow copy of the layer in which these tensors are where the parameters were.

        Other threads do not see them there, and methods of the torch class find them wherever they
        look.
        """
        stand_in: BayesianLayer = object.__new__(type(self))
        stand_in.__dict__.update(self.__dict__)
        stand_in.__dict__.update(zip(self._shapes, tensors, strict=True))
        return stand_in

    def extra_repr(self) -> str:
        shown: str = self._with(self._means()).extra_repr()
        for what, values in (("posterior", self.posteriors), ("prior", self.priors)):
            different = list(dict.fromkeys(values.values()))
            shown += f", {what}={different[0] if len(different) == 1 else values}"
        if type(self.estimator) is not WeightSample:
            shown += f", estimator={self.estimator}"
        return shown.removeprefix(", ")


def _torch_class(cls: type) -> type:
    """The class of torch that a Bayesian layer is made from."""
    return next(c for c in cls.__mro__ if not issubclass(c, BayesianModule))


class Settings:
    """The arguments of :class:`BayesianLayer` that are ours, before it is known of what.

    Raises what that raises for them.
    """

    def __init__(
        self,
        posterior: Posterior | Mapping[str, Posterior] | None,
        prior: Prior | Mapping[str, Prior] | None,
        prior_loc: float,
        prior_scale: float,
        init_scale: float,
        parametrization: str,
        estimator: str | Estimator = "weight_sample",
    ) -> None:
        self.estimator = estimator_of(estimator)
        self._posterior = _given(
            "posterior", posterior, Posterior, posteriors.Normal(parametrization, init_scale)
        )
        loc = _checks.number("prior_loc", prior_loc)
        scale = _checks.number("prior_scale", prior_scale, above=0.0)
        self._prior = _given("prior", prior, Prior, priors.Normal(loc, scale))

    def by_name(self, names: Collection[str]) -> tuple[dict[str, Posterior], dict[str, Prior]]:
        """The posterior and the prior of each parameter of the torch class."""
        for what, (_, some) in (("posterior", self._posterior), ("prior", self._prior)):
            for name in some:
                if name not in names:
                    raise ValueError(
                        f"{what}: expected names among {', '.join(names)}, got {name!r}"
                    )
        (posterior, some_posteriors), (prior, some_priors) = self._posterior, self._prior
        given = {name: some_priors.get(name, prior) for name in names}
        own = {id(prior): prior.of_layer() for prior in given.values()}
        return (
            {name: some_posteriors.get(name, posterior) for name in names},
            {name: own[id(prior)] for name, prior in given.items()},
        )


def _given(
    what: str, given: _Kind | Mapping[str, _Kind] | None, kind: type[_Kind], default: _Kind
) -> tuple[_Kind, Mapping[str, _Kind]]:
    """(that of all weights but some, those of these by name)."""
    if given is None:
        return default, {}
    some = dict(given) if isinstance(given, Mapping) else {}
    for value in some.values() if isinstance(given, Mapping) else (given,):
        if not isinstance(value, kind):
            raise TypeError(
                f"{what}: expected None, a {kind.__name__}, or some by name, got "
                f"{_checks.describe(value)}"
            )
    if isinstance(given, Mapping):
        return default, some
    if default != type(default)():
        raise ValueError(f"{what}: expected None beside the numbers of {default}, got {given}")
    return given, {}


def one_for_each(x: Tensor, n_samples: int) -> ValueError:
    """The error for an input that is not one for each draw."""
    return ValueError(
        f"x: expected one input for each of {n_samples} draws, got {_checks.describe(x)}"
    )
