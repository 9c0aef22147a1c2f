from __future__ import annotations

import platform

import torch

import bslfast.info


def pytest_configure() -> None:
    """Bring glibc's allocator to the state that it has in any process with a large tensor.

    Until it has freed a large block, it gives freed megabytes back to the system at once, and every
    call takes page faults for them. The first implementation would pay for that.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, object]) -> None:
    del config
    machine_info["bslfast"] = bslfast.info.describe()
    machine_info["torch"] = torch.__version__
    machine_info["processor_name"] = platform.processor()
