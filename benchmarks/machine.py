"""The machine a measurement was made on, and how fast it reads memory: measured, not looked up."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.gpu import gpu_name
from jukebox_deploy.engines.installed_gpus import Gpu, installed_gpus
from jukebox_deploy.provenance import Computer, describe_computer
from jukebox_deploy.threads import usable_cores

LARGE_READ = 512 << 20
"""Bytes that no processor's caches hold."""

_READ_AT_LEAST = 1 << 30  # bytes per round, so that a small array is read often enough to time


@dataclass(frozen=True)
class Machine(Computer):
    """What a reader needs to compare numbers."""

    read_bytes_per_second: float  # of an array of `LARGE_READ` bytes, all cores, best round
    gpu: str | None = None  # where the work was done, if not on the processor
    gpus: tuple[Gpu, ...] = ()  # what the machine has, used or not

    @property
    def name(self) -> str:
        """What did the work."""
        return self.gpu or self.processor

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_this_machine(device: str = "cpu") -> Machine:
    """The card, with the versions of all that may run, and the GPU if that is where it runs."""
    return describe_machine(None, None if device == "cpu" else gpu_name())


def describe_machine(packages: dict[str, str] | None = None, gpu: str | None = None) -> Machine:
    """Look around and measure the memory; `packages` as in `describe_computer`, `gpu` is where the work is done."""
    return Machine(
        **vars(describe_computer(packages)),
        read_bytes_per_second=read_bandwidth(LARGE_READ),
        gpu=gpu,
        gpus=installed_gpus(),
    )


def read_bandwidth(size: int, rounds: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes per second at which all cores together read an array of `size` bytes again and again.

    The best of several rounds: what the machine can do when nothing disturbs it. A small array
    stays in the caches, like the weights of a small model.
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
    """NumPy reads every word for the largest one, without holding the interpreter's lock."""
    for _ in range(repeats):
        part.max()
