"""The mixin that makes a Bayesian layer of one of torch."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast.nn import posteriors, priors
from bslfast.nn.estimators import Estimator, WeightSample, estimator_of
from bslfast.nn.module import BayesianModule
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


class BayesianLayer(BayesianModule):
    """A layer of torch whose parameters are drawn: ``class BayesConv2d(BayesianLayer, Conv2d)``.

    Each parameter of the torch class, say ``weight``, gives way to those of its posterior,
    ``weight_loc`` and ``weight_raw_scale``. A forward pass draws a weight and calls the torch
    class's own forward, which finds the sample where the parameter was.

    Args:
        *args, **kwargs: as of the torch class.
        posterior: what the weights are drawn from, see :mod:`bslfast.nn.posteriors`; one for all,
            or by name (``{"bias": Deterministic()}``), where those that are not named have the
            default, ``Normal(parametrization, init_scale)``.
        prior: what they diverge from, see :mod:`bslfast.nn.priors`; likewise, the default being
            ``Normal(prior_loc, prior_scale)``.
        prior_loc, prior_scale: of the default prior.
        init_scale: standard deviation of the default posterior at the start.
        parametrization: of its scale, as in :func:`bslfast.functional.normal_rsample`.
        estimator: how outputs are drawn: "weight_sample", "local_reparametrization", "flipout" or
            an Estimator, see :func:`bslfast.nn.set_estimator`.

    Attributes:
        estimator: the Estimator. Another, or its name, may be put there.
        posteriors, priors: those of each weight, by its name. To change one, put another there; a
            posterior only by one of the same parameters.

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
        torch_init(*args, **kwargs)
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
        posterior, prior = settings.by_name(self._parameters)
        self.posteriors, self.priors, self._keys = {}, {}, {}
        for name, parameter in list(self._parameters.items()):
            keys = tuple(f"{name}_{p}" for p in posterior[name].names)
            if parameter is None:  # it stays: methods of the torch class ask for it
                for key in keys:
                    self.register_parameter(key, None)
                continue
            del self._parameters[name]
            self.posteriors[name], self.priors[name] = posterior[name], prior[name]
            self._keys[name] = keys
            _checks.operand(name, parameter)
            loc = parameter.detach()
            for key, value in zip(keys, (loc, *posterior[name].allocate(loc)), strict=True):
                self.register_parameter(key, nn.Parameter(value, parameter.requires_grad))
        for weight in self.weights():
            divergence_of(weight)  # that there is one
            with torch.no_grad():
                weight.posterior.reset(weight.parameters)
        self.estimator = settings.estimator

    @property
    def estimator(self) -> Estimator:
        """How outputs are drawn."""
        return self._estimator

    @estimator.setter
    def estimator(self, value: str | Estimator) -> None:
        found = estimator_of(value)
        found.check(self)
        self._estimator = found

    def weights(self) -> list[Weight]:
        """The weights in the order of the torch class's parameters, without those that are None."""
        # Past __getattr__ and without f-strings, which small models would notice at every step; but
        # a parametrization of torch.nn.utils is no parameter.
        own, prior, weights = self._parameters, self.priors, []
        for name, posterior in self.posteriors.items():
            parameters: tuple[Any, ...] = ()
            for key in self._keys[name]:
                value = own.get(key)
                parameters += (getattr(self, key) if value is None else value,)
            weights.append(Weight(posterior, prior[name], parameters))
        return weights

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the means as the torch class draws its parameters; put all else to its start."""
        if "posteriors" not in self.__dict__:  # inside the torch class's constructor
            torch_self: Any = super()
            torch_self.reset_parameters()
            return
        weights = self.weights()
        self._with([weight.loc for weight in weights]).reset_parameters()
        for weight in weights:
            weight.posterior.reset(weight.parameters)

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
        if drawn is None and seed is None:
            drawn = self.drawn
        if drawn is None:
            return self.estimator(self, *inputs, seed=seed, **options)
        return self.function(drawn, *inputs, **options)

    def function(self, drawn: tuple[Tensor, ...], *inputs: Any, **options: Any) -> Tensor:
        """What the torch class computes with these tensors as its parameters."""
        self.check_inputs(*inputs, **options)
        outputs: Tensor = self._with(drawn).forward(*inputs, **options)
        return outputs

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
        outputs = []
        for i in range(n_samples):
            drawn = self.drawn
            if drawn is None:
                drawn = tuple([weight.rsample() for weight in self.weights()])
            outputs.append(self.output(drawn, x[i] if per_draw else x))
        return torch.stack(outputs)

    def output(self, drawn: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """The output for one input as a tensor, whatever else :meth:`function` returns."""
        return self.function(drawn, x)

    def deterministic_twin(self) -> nn.Module:
        """The torch class's own layer, with copies of the means as its parameters."""
        torch_class: Any = _torch_class(type(self))
        twin: nn.Module = torch_class.__new__(torch_class)
        nn.Module.__init__(twin)
        ours = {"posteriors", "priors", "_keys", "_estimator", "drawn", "_remembered", "training"}
        ours.update(twin.__dict__)
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ours})
        means = dict(zip(self.posteriors, self.weights(), strict=True))
        for key in self._parameters:
            name = key.removesuffix("_loc")
            if name in means:
                loc = means[name].loc
                mean = nn.Parameter(loc.detach().clone(), loc.requires_grad)
                twin.register_parameter(name, mean)
            elif name != key:
                twin.register_parameter(name, None)
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
        stand_in.__dict__.update(zip(self.posteriors, tensors, strict=True))
        return stand_in

    def extra_repr(self) -> str:
        shown: str = self._with([weight.loc for weight in self.weights()]).extra_repr()
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
        estimator: str | Estimator,
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
        return (
            {name: some_posteriors.get(name, posterior) for name in names},
            {name: some_priors.get(name, prior) for name in names},
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
