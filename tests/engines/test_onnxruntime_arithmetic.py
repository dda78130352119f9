"""What a song's record says of the kernels of ONNX Runtime on a CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jukebox_deploy.engines.onnxruntime import arithmetic

RUNTIME = SimpleNamespace(__version__="1.30.0")


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
    assert arithmetic.describe_arithmetic(RUNTIME) == expected
