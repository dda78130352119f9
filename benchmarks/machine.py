"""The machine a measurement was made on, and how fast it reads memory: measured, not looked up."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.gpu import Gpu, gpu_name, installed_gpus
from jukebox_deploy.threads import usable_cores

LARGE_READ = 512 << 20
"""Bytes that no processor's caches hold."""

PACKAGES = (
    "cuda-bindings",
    "jukebox-deploy",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "safetensors",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "transformers",
)
"""What the machine's card gives versions of, as far as they are there."""

_READ_AT_LEAST = 1 << 30  # bytes per round, so that a small array is read often enough to time


@dataclass(frozen=True)
class Machine:
    """What a reader needs to compare numbers."""

    processor: str
    cores: int  # those that this process may use
    memory_bytes: int | None  # `None` where the system does not tell
    system: str
    python: str
    packages: dict[str, str]  # versions
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
    from jukebox_deploy.jobs.opening.eager import tool_versions

    return describe_machine(tool_versions(*PACKAGES), None if device == "cpu" else gpu_name())


def describe_machine(packages: dict[str, str], gpu: str | None = None) -> Machine:
    """Look around and measure the memory; `packages` are the versions of what is to run, `gpu` where."""
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        system=platform.platform(),
        python=platform.python_version(),
        packages=packages,
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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
