"""Description of what decides how ONNX Runtime rounds on a CPU, besides the graphs themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jukebox_deploy.engines.onnxruntime.ready import this_maker

_CPU_INFO = Path("/proc/cpuinfo")

_CHOOSE_KERNELS = (
    *("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "amx_int8", "amx_bf16"),  # x86
    *("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sme"),  # Arm
)
"""Linux's names of the instructions by which ONNX Runtime chooses among kernels, whose sums differ in order."""


def describe_arithmetic(runtime: Any) -> str:
    """Return version, architecture and vector instructions: `1.30.0 x86_64 (avx avx2 fma)`.

    `runtime`: the `onnxruntime` module. The instructions are left out where the system does not list them.
    """
    maker = this_maker(runtime)
    found = _instructions()
    listed = " ".join(name for name in _CHOOSE_KERNELS if name in found)
    return f"{maker.version} {maker.machine}" + (f" ({listed})" if listed else "")


def _instructions() -> set[str]:
    """Return the features of the CPU, as Linux lists them for the first core."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    lists = (value for name, _, value in (line.partition(":") for line in lines) if name.strip() in _LISTS)
    return set(next(lists, "").split())


_LISTS = ("flags", "Features")  # on x86 and on Arm
