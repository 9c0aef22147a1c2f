"""A Bayesian MLP in JAX with optax, as served.py asks for it.

{"load": a file} -> {"results": a file with kl, draws of nll, predictions, and the gradient by the
first weight's locs}
{"time": one of the passes, "calls": count} -> {"seconds": of all}
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1]))
from served import Request, Training, serve, with_state


def outputs(parameters: Any, key: Any, x: Any) -> Any:
    """The network for one draw of all weights."""
    for index, layer in enumerate(parameters["layers"]):
        w, b = (
            loc + jax.nn.softplus(raw) * jr.normal(k, loc.shape, loc.dtype)
            for (loc, raw), k in zip(layer, jr.split(jr.fold_in(key, index)), strict=True)
        )
        x = (jax.nn.relu(x) if index else x) @ w.T + b
    return x


def divergence(parameters: Any) -> Any:
    """From N(0, 1), of all weights."""

    def of(loc: Any, raw: Any) -> Any:
        scale = jax.nn.softplus(raw)
        return jnp.sum(0.5 * (scale * scale + loc * loc - 1) - jnp.log(scale))

    return sum(of(*pair) for layer in parameters["layers"] for pair in layer)


def nll(parameters: Any, key: Any, x: Any, y: Any) -> Any:
    """The mean over rows."""
    found = outputs(parameters, key, x)
    if jnp.issubdtype(y.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(found, y).mean()
    noise = parameters["log_noise"]
    scaled = (y - found) * jnp.exp(-noise)
    return jnp.mean(0.5 * scaled * scaled + noise) + 0.5 * math.log(2 * math.pi)


def functions(data: Any) -> dict[str, Callable[[], Any]]:
    """The compiled passes."""
    layers = range(len([name for name in data if name.startswith("w of")]))
    parameters = {
        "layers": [
            [
                (jnp.asarray(data[f"{p} of {layer}"]), jnp.asarray(data[f"{p} raw of {layer}"]))
                for p in "wb"
            ]
            for layer in layers
        ],
        "log_noise": jnp.zeros(()),
    }
    every_x, every_y = jnp.asarray(data["every x"]), jnp.asarray(data["every y"])
    names = ("batch", "rows", "samples", "epochs", "draws")
    batch, rows, samples, epochs, count = (int(data[name]) for name in names)
    x, y, asked = every_x[:batch], every_y[:batch], every_x[:rows]
    size = len(every_x)

    def loss(parameters: Any, key: Any, x: Any, y: Any) -> Any:
        return nll(parameters, key, x, y) + divergence(parameters) / size

    @jax.jit
    def train(parameters: Any, key: Any, x: Any, y: Any) -> Any:
        key, own = jr.split(key)
        return jax.value_and_grad(loss)(parameters, own, x, y), key

    @jax.jit
    def predict(parameters: Any, key: Any, x: Any) -> Any:
        key, own = jr.split(key)
        found = jax.lax.map(lambda own: outputs(parameters, own, x), jr.split(own, samples))
        return found, key

    keys = {"step": jr.key(0)}

    def with_key(function: Callable[..., Any], *arguments: Any) -> Any:
        found, keys["step"] = function(arguments[0], keys["step"], *arguments[1:])
        return found

    training = Training(loss, batch, 1e-4)
    with_adam, scan = (
        with_state(function, training.start(parameters))
        for function in (training.step, training.epoch)
    )
    draws = jax.jit(
        lambda parameters, x, y: jax.lax.map(
            lambda key: nll(parameters, key, x, y), jr.split(jr.key(2), count)
        )
    )
    return {
        "forward + backward": lambda: with_key(train, parameters, x, y),
        "step with Adam": lambda: with_adam(x, y),
        "training loop": lambda: [scan(every_x, every_y) for _ in range(epochs)],
        "predictions": lambda: with_key(predict, parameters, asked),
        "kl": lambda: jax.jit(divergence)(parameters),
        "nll": lambda: draws(parameters, x, y),
    }


def main() -> None:
    found: dict[str, Callable[[], Any]] = {}

    def load(request: Request) -> dict[str, Any]:
        with np.load(request["load"]) as data:
            found.update(functions(data))
        results = Path(request["load"]).with_name("results.npz")
        _, gradient = found["forward + backward"]()
        np.savez(
            results,
            gradient=gradient["layers"][0][0][0],
            **{name: found[name]() for name in ("kl", "nll", "predictions")},
        )
        return {"results": str(results)}

    serve(version("jax"), load, lambda request: found[request["time"]])


if __name__ == "__main__":
    main()
