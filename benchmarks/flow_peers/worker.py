"""flowjax, as served.py asks for it.

{"load": a file, "batch": rows, ...} -> {"log_prob": of a batch}
{"losses": count, "batch": rows, ...} -> {"losses": of the first steps of a training loop, if all
rows are as the first one}
{"time": one of the passes, "calls": count, "batch": rows, ...} -> {"seconds": of all}

All have "samples", the "rate" of learning, and "rows" and "epochs" of a training loop.
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
from flowjax import bijections as bij
from flowjax.distributions import StandardNormal, Transformed
from paramax import Parameterize

sys.path.insert(0, str(Path(__file__).parents[1]))
from served import Request, Training, serve, with_state


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


def functions(
    distribution: Transformed, every_x: Any, request: Request
) -> dict[str, Callable[[], Any]]:
    """The compiled passes, and the losses of steps on a data set of one row again and again."""
    parameters, rest = eqx.partition(distribution, eqx.is_inexact_array)
    x, every_x = every_x[: request["batch"]], every_x[: request["rows"]]
    samples, epochs = request["samples"], request["epochs"]

    def log_prob(parameters: Any, x: Any) -> Any:
        return eqx.combine(parameters, rest).log_prob(x)

    def loss(parameters: Any, key: Any, x: Any) -> Any:
        return -log_prob(parameters, x).mean()

    training = Training(loss, request["batch"], request["rate"])
    with_adam, scan = (
        with_state(function, training.start(parameters))
        for function in (training.step, training.epoch)
    )

    def losses() -> Any:
        same = jnp.broadcast_to(x[:1], every_x.shape)
        return training.epoch(training.start(parameters), same)[1]

    train, density, key = jax.jit(jax.value_and_grad(loss)), jax.jit(log_prob), jr.key(0)
    draw = jax.jit(lambda parameters, key: eqx.combine(parameters, rest).sample(key, (samples,)))
    return {
        "train step": lambda: train(parameters, key, x),
        "with Adam": lambda: with_adam(x),
        "training loop": lambda: [scan(every_x) for _ in range(epochs)],
        "log_prob": lambda: density(parameters, x),
        "sample": lambda: draw(parameters, key),
        "losses": losses,
    }


def main() -> None:
    made: dict[int, dict[str, Callable[[], Any]]] = {}
    loaded: list[Any] = []

    def function(name: str, request: Request) -> Callable[[], Any]:
        batch = request["batch"]
        if batch not in made:
            made[batch] = functions(*loaded, request)
        return made[batch][name]

    def others(request: Request) -> dict[str, Any]:
        if "losses" in request:
            return {"losses": function("losses", request)()[: request["losses"]].tolist()}
        with np.load(request["load"]) as data:
            loaded[:] = flow(data), jnp.asarray(data["x"])
        made.clear()
        return {"log_prob": function("log_prob", request)().tolist()}

    def passes(request: Request) -> Callable[[], Any]:
        return function(request["time"], request)

    serve(f"{version('flowjax')} (jax {version('jax')})", others, passes)


if __name__ == "__main__":
    main()
