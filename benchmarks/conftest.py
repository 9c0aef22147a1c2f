from __future__ import annotations

import platform

import torch

import bslfast.info


def pytest_configure() -> None:
    """Bring glibc's allocator to the state that any process with a large tensor has.

    Until it has freed a large block, it gives freed megabytes back to the system at once and takes
    page faults for them at every call: whichever implementation comes first would pay for that.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, object]) -> None:
    del config
    machine_info["bslfast"] = bslfast.info.describe()
    machine_info["torch"] = torch.__version__
    machine_info["processor_name"] = platform.processor()
