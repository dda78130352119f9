"""Targets of make that must not do much where there is nothing to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.source_tree import REPOSITORY


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_without_a_gpu_its_tests_install_nothing(tmp_path: Path) -> None:
    """`false` answers as a Python that finds no GPU."""
    command = ["make", "--no-print-directory", "gpu-test", "PYTHON=false", f"GPU_VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith("No NVIDIA GPU with a driver was found, so nothing was installed")
    assert not list(tmp_path.iterdir())
