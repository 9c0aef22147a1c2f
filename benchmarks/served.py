"""The process of a peer that computes with JAX. Its environment has no torch.

python worker.py THREADS CACHE

Requests and answers are lines of JSON:

{"load": a file of arrays, ...} -> what the worker says
{"time": a pass, "calls": count, ...} -> {"seconds": of all}
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

Request = dict[str, Any]


def serve(
    version: str,
    load: Callable[[Request], dict[str, Any]],
    passes: Callable[[Request], Callable[[], Any]],
) -> None:
    """Answer until the input ends.

    Args:
        version: of the library.
        load: takes arrays and answers.
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
        if "load" in request:
            answer(load(request))
            continue
        function = passes(request)
        begin = time.perf_counter()
        for _ in range(request["calls"]):
            jax.block_until_ready(function())
        answer({"seconds": time.perf_counter() - begin})
