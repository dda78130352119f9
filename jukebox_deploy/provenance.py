"""What records of measurements say of how they were made: the time, the computer, the versions of packages."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.threads import usable_cores
from jukebox_deploy.tool_versions import tool_versions

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
"""Packages whose versions are recorded, as far as they are installed."""


@dataclass(frozen=True)
class Computer:
    """What a reader needs to know of the computer and its software."""

    processor: str
    cores: int  # those that this process may use
    memory_bytes: int | None  # `None` where the system does not tell
    system: str
    python: str
    packages: dict[str, str]  # versions


def describe_computer() -> Computer:
    """Describe this computer, with the versions of `PACKAGES`."""
    return Computer(
        processor=_processor(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        system=platform.platform(),
        python=platform.python_version(),
        packages=tool_versions(*PACKAGES),
    )


def time_now() -> str:
    """Return the time in UTC to the second, in ISO 8601: `2026-11-29T20:15:00Z`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


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
