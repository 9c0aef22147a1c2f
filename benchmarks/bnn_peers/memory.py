"""The peak memory of a training step, measured in a process that does nothing else.

python benchmarks/bnn_peers/memory.py NAME INSTALLED THREADS

Prints the resident memory at its highest in a step of the largest network (/proc/self/status), less
that before the network was made, less its parameters, gradients and optimiser's state: a number of
copies of its weights. Needs Linux, and glibc's variables in :data:`ALLOCATOR`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import start
from bnn_peers.cases import CASES, Case, draw, ours
from bnn_peers.peers import ADAM, BY_PARTS, PEERS, WHOLE, Ours, Torch, TorchPeer

#: The names of ours, and how each computes its loss.
OURS = {"bslfast": BY_PARTS, "bslfast by negative_elbo": WHOLE}

#: Freed memory goes back to the system at once, so that resident memory is what is in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def copies(name: str, installed: Path, threads: int) -> float | None:
    """The peak of an implementation, from a new process; None if it fails, as it does elsewhere."""
    command = [sys.executable, __file__, name, str(installed), str(threads)]
    answer = subprocess.run(
        command, env=os.environ | ALLOCATOR, stdout=subprocess.PIPE, text=True, check=False
    )
    if answer.returncode:
        print(f"the memory of {name} could not be measured", file=sys.stderr)
        return None
    return float(answer.stdout)


def built(case: Case, name: str) -> Torch:
    """The implementation with random weights."""
    data = case.data(case.batch)
    weights = draw(case)
    if name in OURS:
        own = Ours(case, ours(case), OURS[name], data)
        own.load(weights)
        return own
    peer = next(peer for peer in PEERS if peer.name == name)
    assert isinstance(peer, TorchPeer)
    network = peer.network(case)
    network.load(weights)
    return Torch(case, network, network.loss, network.predict, data)


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(field + ":")[1].split()[0])


def settle() -> None:
    """Give back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def kept(found: Torch) -> int:
    """Bytes of the parameters, their gradients and the optimiser's state."""
    tensors = []
    for parameter in found.module.parameters():
        tensors.append(parameter.detach())
        if parameter.grad is not None:
            tensors.append(parameter.grad)
        state: dict[str, Any] = found.optimizer.state.get(parameter, {})
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    # A library may have two parameters of the same memory. Only these numbers of a storage count.
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def main() -> None:
    name, installed, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    peers = [peer for peer in PEERS if peer.name == name]
    if len(start(peers, Path(installed), int(threads))) < len(peers):
        raise SystemExit(1)
    case = CASES[-1]
    small = replace(case, widths=(784, 32, 32, 10))
    warm = built(small, name)
    for _ in range(3):
        warm.seconds(ADAM, 1)
    del warm
    settle()
    before = resident("VmRSS")
    found = built(case, name)
    for _ in range(3):
        found.seconds(ADAM, 1)
    settle()
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew
    found.seconds(ADAM, 2)
    above = resident("VmHWM") - before - kept(found)
    weights = sum(n_in * n_out + n_out for n_in, n_out in case.shapes)
    print(above / (4 * weights))


if __name__ == "__main__":
    main()
