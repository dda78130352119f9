"""The machine that a measurement ran on, and its measured memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.gpu import gpu_name
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.engines.installed_gpus import Gpu, installed_gpus
from jukebox_deploy.provenance import Computer, describe_computer
from jukebox_deploy.threads import usable_cores

LARGE_READ = 512 << 20
"""Bytes to read for the bandwidth of memory: more than the caches of a processor hold."""

_READ_AT_LEAST = 1 << 30  # bytes per round, so that reading a small array takes long enough to time


@dataclass(frozen=True)
class Machine(Computer):
    """The computer, its software, its GPUs and its memory bandwidth, as recorded with every result."""

    read_bytes_per_second: float  # all cores reading an array of `LARGE_READ` bytes, fastest round
    gpu: str | None = None  # name of the GPU that did the work; `None`: the processor did
    gpus: tuple[Gpu, ...] = ()  # all GPUs of the machine, used or not

    @property
    def name(self) -> str:
        """The name of the GPU or processor that did the work."""
        return self.gpu or self.processor

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain JSON data."""
        return asdict(self)


def describe_this_machine(device: Provider = Provider.CPU) -> Machine:
    """Describe this machine and measure its memory bandwidth.

    `device`: where the work is done, one of `PYTORCH_PROVIDERS`. Raises `NoDeviceError` for a GPU if none is visible.
    """
    return Machine(
        **vars(describe_computer()),
        read_bytes_per_second=read_bandwidth(LARGE_READ),
        gpu=None if device == Provider.CPU else gpu_name(),
        gpus=installed_gpus(),
    )


def read_bandwidth(size: int, rounds: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the bytes per second at which all cores together read an array of `size` bytes repeatedly.

    The fastest of the rounds counts, because the others were disturbed. A small array stays in the processor's caches,
    like the weights of a small model.
    """
    threads = usable_cores()
    words = np.ones(max(size // 8, threads), np.int64)
    parts = np.array_split(words, threads)
    repeats = max(1, _READ_AT_LEAST // words.nbytes)
    with ThreadPoolExecutor(threads) as pool:
        seconds = [_time_round(pool, parts, repeats, clock) for _ in range(rounds)]
    return repeats * words.nbytes / min(seconds)


def _time_round(pool: ThreadPoolExecutor, parts: list[np.ndarray], repeats: int, clock: Callable[[], float]) -> float:
    begun = clock()
    for done in [pool.submit(_read, part, repeats) for part in parts]:
        done.result()
    return clock() - begun


def _read(part: np.ndarray, repeats: int) -> None:
    """Read every word, by searching for the maximum; NumPy releases the interpreter's lock meanwhile."""
    for _ in range(repeats):
        part.max()
