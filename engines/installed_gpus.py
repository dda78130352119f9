"""The GPUs of this machine, as the driver describes them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU of the machine."""

    name: str
    memory_bytes: int | None  # `None` if it has no memory of its own
    compute_capability: str  # such as "8.9"
    driver: str | None  # version of the driver; `None` if the GPU was found by PyTorch


_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits")


def installed_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that `nvidia-smi` lists, or else those that PyTorch finds; none without both."""
    if shutil.which(_QUERY[0]) is None:
        return _gpus_of_torch()
    try:
        listed = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # `nvidia-smi` fails without a driver
        return ()
    return tuple(_gpu(line) for line in listed.splitlines() if line.count(",") == _QUERY[1].count(","))


def _gpu(line: str) -> Gpu:
    """Parse a line such as `NVIDIA L4, 23034, 8.9, 550.54.15`, with the memory in MiB."""
    name, mebibytes, capability, driver = (field.strip() for field in line.split(","))
    return Gpu(name, int(mebibytes) << 20 if mebibytes.isdecimal() else None, capability, driver)


def _gpus_of_torch() -> tuple[Gpu, ...]:
    try:
        import torch
    except ModuleNotFoundError:  # a machine that only samples
        return ()
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(Gpu(p.name, p.total_memory, f"{p.major}.{p.minor}", None) for p in found)
