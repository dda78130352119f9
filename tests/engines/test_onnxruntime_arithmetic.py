"""What a song's record says of the kernels of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jukebox_deploy.engines.onnxruntime import arithmetic

RUNTIME = SimpleNamespace(__version__="1.30.0", cuda_version="13.0")


@pytest.mark.parametrize(
    ("machine", "listed", "expected"),
    [
        ("x86_64", "flags\t\t: fpu fma avx avx2 sse4_2\n", "1.30.0 x86_64 (avx avx2 fma)"),
        ("x86_64", "flags : avx512f avx2\n\nflags : avx\n", "1.30.0 x86_64 (avx2 avx512f)"),
        ("aarch64", "processor : 0\nFeatures : fp asimd asimddp sve\n", "1.30.0 aarch64 (asimddp sve)"),
        ("arm64", "", "1.30.0 arm64"),
        ("arm64", None, "1.30.0 arm64"),
    ],
)
def test_version_architecture_and_instructions(
    machine: str, listed: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jukebox_deploy.engines.onnxruntime.ready.platform.machine", lambda: machine)
    monkeypatch.setattr(arithmetic, "_CPU_INFO", tmp_path / "cpuinfo")
    if listed is not None:
        (tmp_path / "cpuinfo").write_text(listed)
    assert arithmetic.describe_cpu_arithmetic(RUNTIME) == expected


class Library:
    """Stands for a library of CUDA that was loaded."""

    def __init__(self, file: str) -> None:
        versions = {"libcublasLt.so.13": ("cublasLtGetVersion", 130100), "libcudnn.so.9": ("cudnnGetVersion", 91900)}
        if file not in versions:
            raise OSError(f"{file}: cannot open shared object file")
        function, version = versions[file]
        setattr(self, function, type("Function", (), {"__call__": lambda call: version})())


def test_versions_of_the_libraries_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", Library)
    assert arithmetic.describe_gpu_arithmetic(RUNTIME) == "1.30.0, cuBLAS 130100, cuDNN 91900"
    other = SimpleNamespace(__version__="1.30.0", cuda_version="14.1")
    assert arithmetic.describe_gpu_arithmetic(other) == "1.30.0, cuBLAS unknown, cuDNN 91900"
