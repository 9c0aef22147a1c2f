"""What steps of a program Bayesian layers stand for: (builder, layer, lanes) -> lanes."""

from __future__ import annotations

from torch import nn

from bslfast.nn import posteriors, priors
from bslfast.nn.estimators import WeightSample
from bslfast.nn.estimators.weight_sample import pays_at_once
from bslfast.nn.layer import BayesianLayer
from bslfast.nn.linear import BayesLinear
from bslfast.nn.sequential import Sequential
from bslfast.programs import Builder, CannotLower, Drawn, Lanes, lower, lowers
from bslfast.programs.networks import dense

#: The seed and the first stream of layers that are drawn together.
_Seeds = dict[nn.Module, tuple[int, int]]


@lowers(BayesLinear)
def _bayes_linear(
    builder: Builder,
    layer: BayesLinear,
    lanes: Lanes,
    added: Lanes | None = None,
    seeded: tuple[int, int] | None = None,
) -> Lanes:
    seed, stream = (max(builder.seeds, default=-1) + 1, 0) if seeded is None else seeded
    return drawn_dense(builder, layer, lanes, added, seed=seed, stream=stream)


@lowers(Sequential)
def _sequential(
    builder: Builder, module: Sequential, lanes: Lanes, seeds: _Seeds | None = None
) -> Lanes:
    builder.looked_at(module)
    if seeds is None:
        seeds = _together(builder, module)
    for part in module:
        if part in seeds:
            lanes = lower(builder, part, lanes, None, seeds.pop(part))
        elif type(part) is Sequential:
            lanes = lower(builder, part, lanes, seeds)
        else:
            lanes = lower(builder, part, lanes)
    return lanes


def _together(builder: Builder, module: Sequential) -> _Seeds:
    """Those of a chain whose layers are drawn together, as in its own passes."""
    layers: dict[BayesianLayer, None] = {}
    module.add_layers(layers)
    if len(layers) < 2 or not pays_at_once([*layers]):
        return {}
    found: _Seeds = {}
    stream = 0
    for layer in layers:
        found[layer] = max(builder.seeds, default=-1) + 1, stream
        stream += len(layer.weights())
    return found


def drawn_dense(
    builder: Builder,
    layer: BayesLinear,
    lanes: Lanes,
    added: Lanes | None = None,
    *,
    seed: int,
    stream: int,
) -> Lanes:
    """A layer whose weights take this seed of a call, and the streams of noise from that one on.

    That they have been drawn already, inside :func:`bslfast.nn.one_draw`, is not looked at.
    """
    if type(layer) is not BayesLinear:  # BayesianMLP calls this without a look at the class
        raise CannotLower(f"{type(layer).__name__} has no steps")
    builder.looked_at(layer, "posteriors", "priors")
    own = vars(layer)
    builder.entries.append((own, "_estimator", own.get("_estimator")))
    for values in (layer.posteriors, layer.priors):
        builder.entries += [(values, name, value) for name, value in values.items()]
    if type(layer.estimator) is not WeightSample:
        raise CannotLower(f"{type(layer.estimator).__name__} has no steps")
    drawn: list[Drawn] = []
    kinds = set()
    for weight in layer.weights():
        posterior, prior, (loc, *others) = weight
        if type(posterior) is not posteriors.Normal or type(prior) is not priors.Normal:
            raise CannotLower(f"{posterior} has no steps beside {prior}")
        # That it is not negative has to be seen in each draw.
        if posterior.parametrization == "scale":
            raise CannotLower("no step has the parametrization 'scale'")
        kinds.add(posterior.parametrization)
        if len(kinds) > 1:
            raise CannotLower("weights of several parametrizations are drawn by several seeds")
        (raw_scale,) = others
        drawn.append(
            builder.draw(
                loc,
                raw_scale,
                parametrization=posterior.parametrization,
                prior=(prior.loc, prior.scale),
                seed=seed,
                stream=stream + len(drawn),
            )
        )
    return dense(builder, lanes, drawn[0], drawn[1] if len(drawn) > 1 else None, added)
