"""Description of what decides how ONNX Runtime rounds, besides the graphs themselves."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from jukebox_deploy.engines.onnxruntime.ready import this_maker

_CPU_INFO = Path("/proc/cpuinfo")

_CHOOSE_KERNELS = (
    *("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "amx_int8", "amx_bf16"),  # x86
    *("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sme"),  # Arm
)
"""Linux's names of the instructions by which ONNX Runtime chooses among kernels, whose sums differ in order."""


def describe_cpu_arithmetic(runtime: Any) -> str:
    """Return version, architecture and vector instructions: `1.30.0 x86_64 (avx avx2 fma)`.

    `runtime`: the `onnxruntime` module. The instructions are left out where the system does not list them.
    """
    maker = this_maker(runtime)
    found = _instructions()
    listed = " ".join(name for name in _CHOOSE_KERNELS if name in found)
    return f"{maker.version} {maker.machine}" + (f" ({listed})" if listed else "")


def describe_gpu_arithmetic(runtime: Any) -> str:
    """Return the versions of ONNX Runtime and of the libraries of its products: `1.30.0, cuBLAS 130100, cuDNN 91900`.

    Call it when the provider has started, which loads them. They are packages of their own, so they may change between
    two runs. `runtime`: the `onnxruntime` module.
    """
    major = str(getattr(runtime, "cuda_version", "")).partition(".")[0]
    blas = _version_of(f"libcublasLt.so.{major}", "cublasLtGetVersion")
    dnn = _version_of("libcudnn.so.9", "cudnnGetVersion")
    return f"{runtime.__version__}, cuBLAS {blas}, cuDNN {dnn}"


def _version_of(file: str, function: str) -> str:
    """Return the version that a library tells; `unknown` where there is no such library, as on Windows."""
    try:
        call = getattr(ctypes.CDLL(file), function)
    except (OSError, AttributeError):
        return "unknown"
    call.restype = ctypes.c_size_t
    return str(call())


def _instructions() -> set[str]:
    """Return the features of the CPU, as Linux lists them for the first core."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    lists = (value for name, _, value in (line.partition(":") for line in lines) if name.strip() in _LISTS)
    return set(next(lists, "").split())


_LISTS = ("flags", "Features")  # on x86 and on Arm
