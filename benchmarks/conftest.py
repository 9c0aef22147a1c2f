from __future__ import annotations

import platform

import torch

import bslfast.info


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, object]) -> None:
    del config
    machine_info["bslfast"] = bslfast.info.describe()
    machine_info["torch"] = torch.__version__
    machine_info["processor_name"] = platform.processor()
