"""flowjax, as served.py asks for it.

{"load": a file, "samples": rows} -> {"log_prob": of the first 64 rows}
{"time": one of the passes, "batch": rows, "calls": count, "samples": rows} -> {"seconds": of all}
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from flowjax import bijections as bij
from flowjax.distributions import StandardNormal, Transformed
from paramax import Parameterize

sys.path.insert(0, str(Path(__file__).parents[1]))
from served import Request, serve


def flow(data: Any) -> Transformed:
    """A scan over layers, as flowjax's own flows are; couplings take turns at moving the halves."""
    features, transforms = data["x"].shape[1], int(data["transforms"])
    hidden = len(data["b0 of 0"])
    if data["spline"]:
        bins, bound = int(data["bins"]), float(data["bound"])
        # Its least width is not a fraction of the interval.
        map = bij.RationalQuadraticSpline(knots=bins - 1, interval=bound, min_width=2e-3 * bound)
    else:
        map = eqx.tree_at(
            lambda affine: affine.scale, bij.Affine(), Parameterize(jnp.exp, jnp.zeros(()))
        )
    options = {"transformer": map, "nn_width": hidden, "nn_depth": 2}

    def autoregressive(key: Any) -> Any:
        made = bij.MaskedAutoregressive(key, dim=features, **options)
        return bij.Chain([made, bij.Flip((features,))])

    half = features // 2

    def rolled(by: int) -> Any:
        if features == 2:
            return bij.Flip((2,))
        return bij.Permute(jnp.roll(jnp.arange(features), by))

    def couplings(key: Any) -> Any:
        first, second = (
            bij.Coupling(k, dim=features, untransformed_dim=kept, **options)
            for k, kept in zip(jr.split(key), (half, features - half), strict=True)
        )
        return bij.Chain([first, rolled(-half), second, rolled(half)])

    period = 1 if data["autoregressive"] else 2
    make = autoregressive if period == 1 else couplings
    layers = eqx.filter_vmap(make)(jr.split(jr.key(0), transforms // period))
    for parity in range(period):
        for layer in range(3):

            def parameters(layers: Any, place: int = 2 * parity, layer: int = layer) -> Any:
                step = layers.bijections[place]
                if period == 2:
                    dense = step.conditioner.layers[layer]
                    return dense.weight, dense.bias
                dense = step.masked_autoregressive_mlp.layers[layer]
                return dense.weight.args[1], dense.bias

            new = tuple(
                np.stack([data[f"{name}{layer} of {i}"] for i in range(parity, transforms, period)])
                for name in "wb"
            )
            old = parameters(layers)
            assert [a.shape for a in old] == [a.shape for a in new], (old, new)
            layers = eqx.tree_at(parameters, layers, tuple(jnp.asarray(a) for a in new))
    return Transformed(StandardNormal((features,)), bij.Invert(bij.Scan(layers)))


def functions(distribution: Transformed, x: Any, samples: int) -> dict[str, Callable[[], Any]]:
    """The compiled passes."""
    parameters, rest = eqx.partition(distribution, eqx.is_inexact_array)

    def log_prob(parameters: Any, x: Any) -> Any:
        return eqx.combine(parameters, rest).log_prob(x)

    gradient = jax.value_and_grad(lambda parameters, x: -log_prob(parameters, x).mean())
    adam = optax.adam(1e-4)

    @jax.jit
    def step(parameters: Any, state: Any, x: Any) -> Any:
        updates, state = adam.update(gradient(parameters, x)[1], state)
        return optax.apply_updates(parameters, updates), state

    now = [parameters, adam.init(parameters)]

    def with_adam() -> Any:
        now[:] = step(*now, x)
        return now

    train, density, key = jax.jit(gradient), jax.jit(log_prob), jr.key(0)
    draw = jax.jit(lambda parameters, key: eqx.combine(parameters, rest).sample(key, (samples,)))
    return {
        "train step": lambda: train(parameters, x),
        "with Adam": with_adam,
        "log_prob": lambda: density(parameters, x),
        "sample": lambda: draw(parameters, key),
    }


def main() -> None:
    made: dict[int, dict[str, Callable[[], Any]]] = {}
    loaded: list[Any] = []

    def load(request: Request) -> dict[str, Any]:
        with np.load(request["load"]) as data:
            loaded[:] = flow(data), jnp.asarray(data["x"])
        made.clear()
        few = dict(request, batch=64, time="log_prob")
        return {"log_prob": passes(few)().tolist()}

    def passes(request: Request) -> Callable[[], Any]:
        batch = request["batch"]
        if batch not in made:
            distribution, x = loaded
            made[batch] = functions(distribution, x[:batch], request["samples"])
        return made[batch][request["time"]]

    serve(f"{version('flowjax')} (jax {version('jax')})", load, passes)


if __name__ == "__main__":
    main()
