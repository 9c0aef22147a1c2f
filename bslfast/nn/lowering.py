"""What steps of a program Bayesian layers stand for: (builder, layer, lanes) -> lanes."""

from __future__ import annotations

from bslfast.nn import posteriors, priors
from bslfast.nn.estimators import WeightSample
from bslfast.nn.linear import BayesLinear
from bslfast.programs import Builder, CannotLower, Drawn, Lanes, lowers
from bslfast.programs.networks import dense


@lowers(BayesLinear)
def _bayes_linear(
    builder: Builder, layer: BayesLinear, lanes: Lanes, added: Lanes | None = None
) -> Lanes:
    seed = max(builder.seeds, default=-1) + 1
    return drawn_dense(builder, layer, lanes, added, seed=seed, stream=0)


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
