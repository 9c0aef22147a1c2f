"""The process of a peer that computes with JAX. Its environment has no torch.

python worker.py THREADS CACHE

Requests and answers are lines of JSON:

{"time": a pass, "calls": count, ...} -> {"seconds": of all}
{"load": a file of arrays, ...}, and any other -> what the worker says
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import optax

Request = dict[str, Any]


class Training:
    """Steps with Adam, and epochs of them by one `lax.scan`, compiled.

    Args:
        loss: of parameters, a key for noise, and the tensors of a batch.
        batch: rows of a step of an epoch.
        rate: of learning.

    Attributes:
        step: a state and the tensors of a batch -> the next state and the loss.
        epoch: a state and the tensors of all rows, which it shuffles -> the next state and the
            losses of its steps.
    """

    def __init__(self, loss: Callable[..., Any], batch: int, rate: float) -> None:
        gradient = jax.value_and_grad(loss)
        self.adam = optax.adam(rate)

        def update(parameters: Any, moments: Any, key: Any, *tensors: Any) -> tuple[Any, Any]:
            value, grads = gradient(parameters, key, *tensors)
            updates, moments = self.adam.update(grads, moments)
            return (optax.apply_updates(parameters, updates), moments), value

        def step(state: Any, *tensors: Any) -> tuple[Any, Any]:
            trained, key = state
            key, own = jr.split(key)
            trained, value = update(*trained, own, *tensors)
            return (trained, key), value

        def epoch(state: Any, *tensors: Any) -> tuple[Any, Any]:
            trained, key = state
            key, own, shuffling = jr.split(key, 3)
            size = len(tensors[0])
            order = jr.permutation(shuffling, size)[: size // batch * batch].reshape(-1, batch)

            def body(trained: Any, at: Any) -> tuple[Any, Any]:
                chosen, key = at
                return update(*trained, key, *(every[chosen] for every in tensors))

            trained, values = jax.lax.scan(body, trained, (order, jr.split(own, len(order))))
            return (trained, key), values

        # A state is given up to the next, so that XLA may write in place.
        self.step, self.epoch = (jax.jit(f, donate_argnums=0) for f in (step, epoch))

    def start(self, parameters: Any) -> Any:
        """The state before the first step, with a copy of the parameters."""
        own = jax.tree.map(jnp.copy, parameters)
        return (own, self.adam.init(own)), jr.key(1)


def with_state(function: Callable[..., tuple[Any, Any]], state: Any) -> Callable[..., Any]:
    """The function with a state of its own, which each call changes."""
    now = [state]

    def call(*arguments: Any) -> Any:
        now[0], found = function(now[0], *arguments)
        return found

    return call


def serve(
    version: str,
    others: Callable[[Request], dict[str, Any]],
    passes: Callable[[Request], Callable[[], Any]],
) -> None:
    """Answer until the input ends.

    Args:
        version: of the library.
        others: answers what asks for no time.
        passes: the compiled function that is to be timed.
    """
    # XLA has as many threads as the process has cores when the first computation starts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
    jax.config.update("jax_compilation_cache_dir", sys.argv[2])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    answer({"version": version})
    for line in sys.stdin:
        request = json.loads(line)
        if "time" not in request:
            answer(others(request))
            continue
        function = passes(request)
        begin = time.perf_counter()
        for _ in range(request["calls"]):
            jax.block_until_ready(function())
        answer({"seconds": time.perf_counter() - begin})
