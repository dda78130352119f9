"""The name of the GPU and its measured memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable

from jukebox_deploy.engines.device import Device

_COPIED_AT_LEAST = 8 << 30  # bytes read and written per round, so that copying a small block takes long enough to time


def gpu_name() -> str:
    """Return the name of the first visible GPU. Raises `NoDeviceError` if there is none."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    return CudaDevice().properties.name


def gpu_bandwidth(size: int) -> float:
    """Return the `copy_bandwidth` of the first visible GPU. Raises `NoDeviceError` if there is none."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    return copy_bandwidth(CudaDevice(), size)


def copy_bandwidth(device: Device, size: int, rounds: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the bandwidth of copying a block of `size` bytes within a device, in bytes per second.

    Bytes read and bytes written are both counted. The fastest of the rounds counts.
    """
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
