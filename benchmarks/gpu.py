"""The GPUs of a machine, and how fast the one that is measured moves memory: measured, not looked up."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from jukebox_deploy.engines.device import Device

_COPIED_AT_LEAST = 8 << 30  # bytes per round, so that a small block is copied often enough to time


@dataclass(frozen=True)
class Gpu:
    """One GPU of the machine, as its driver describes it."""

    name: str
    memory_bytes: int | None  # `None` where it has none of its own
    compute_capability: str  # "8.9"
    driver: str | None  # its version; `None` where only PyTorch tells of the GPU


_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits")


def installed_gpus() -> tuple[Gpu, ...]:
    """What `nvidia-smi` lists, or PyTorch where there is no such program; empty where neither sees a GPU."""
    if shutil.which(_QUERY[0]) is None:
        return _gpus_of_torch()
    try:
        listed = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # a program without a driver
        return ()
    return tuple(_gpu(line) for line in listed.splitlines() if line.count(",") == _QUERY[1].count(","))


def _gpu(line: str) -> Gpu:
    """`NVIDIA L4, 23034, 8.9, 550.54.15`, the memory in MiB."""
    name, mebibytes, capability, driver = (field.strip() for field in line.split(","))
    return Gpu(name, int(mebibytes) << 20 if mebibytes.isdecimal() else None, capability, driver)


def _gpus_of_torch() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(Gpu(p.name, p.total_memory, f"{p.major}.{p.minor}", None) for p in found)


def gpu_name() -> str:
    """The name of the first visible GPU; `NoDeviceError` where there is none."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    return CudaDevice().properties.name


def gpu_bandwidth(size: int) -> float:
    """Bytes per second that the first visible GPU moves, see `copy_bandwidth`."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    return copy_bandwidth(CudaDevice(), size)


def copy_bandwidth(device: Device, size: int, rounds: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes per second, read and written, of copies of a block of `size` bytes; the best of several rounds."""
    source, target = device.allocate(size), device.allocate(size)
    repeats = max(1, _COPIED_AT_LEAST // (2 * size))
    try:
        device.copy(target, source, size)
        seconds = [_time_round(device, target, source, size, repeats, clock) for _ in range(rounds)]
    finally:
        device.free(source)
        device.free(target)
    return repeats * 2 * size / min(seconds)


def _time_round(device: Device, target: int, source: int, size: int, repeats: int, clock: Callable[[], float]) -> float:
    device.synchronize()
    begun = clock()
    for _ in range(repeats):
        device.copy(target, source, size)
    device.synchronize()
    return clock() - begun
