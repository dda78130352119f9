"""Install PyTorch into the running interpreter's environment: a CPU build unless there is an NVIDIA GPU.

On Linux the package index gives a build that pulls gigabytes of CUDA libraries. This script looks first
whether the configured index or mirror offers a CPU build, then asks the index that PyTorch documents for
such builds, and takes the large one only where neither can be had. Standard library only.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib import metadata

VERSION = "2.13.0"  # the version that the tests were run with
REQUIREMENT = f"torch=={VERSION}"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    """Install torch; returns the exit status."""
    if installed := _installed_version():
        _say(f"torch {installed} is installed already")
        return 0
    if _has_nvidia_gpu():
        _say(f"found an NVIDIA GPU: installing {REQUIREMENT} with CUDA")
        return _pip("install", REQUIREMENT)
    if platform.system() != "Linux" or _offered_version().endswith("+cpu"):
        _say(f"no NVIDIA GPU: installing {REQUIREMENT}, CPU build")
        return _pip("install", REQUIREMENT)
    _say(f"no NVIDIA GPU: installing {REQUIREMENT}, CPU build, from {CPU_INDEX}")
    if _pip("install", REQUIREMENT, "--index-url", CPU_INDEX, "--retries", "1", "--timeout", "30") == 0:
        return 0
    _say(
        f"{CPU_INDEX} cannot be reached: installing the CUDA build of {REQUIREMENT} from the package index; "
        "this downloads several gigabytes"
    )
    return _pip("install", REQUIREMENT)


def _say(sentence: str) -> None:
    print(f"install_torch: {sentence}.", flush=True)


def _installed_version() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def _has_nvidia_gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listing = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)
    return listing.returncode == 0 and listing.stdout.startswith("GPU")


def _offered_version() -> str:
    """The version that pip would take from the configured indexes, `2.13.0+cpu` for a CPU build."""
    arguments = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-", REQUIREMENT]
    report = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if report.returncode != 0:
        return ""
    return str(json.loads(report.stdout)["install"][0]["metadata"]["version"])


def _pip(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
