"""The memory of this process, and what a command takes: seconds, and the memory of all its processes. Linux only."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jukebox_deploy.errors import EngineError

_EVERY = 0.5  # seconds between two looks at the memory, which take some milliseconds each
_SAID = 400  # characters of a failing command's last words


@dataclass(frozen=True)
class Watched:
    """A command that has ended well. Resident memory counts mapped files, and shared pages once per process."""

    output: str
    wall_seconds: float
    cpu_seconds: float  # of all processes
    peak_tree_bytes: int  # the highest sum over the processes that was seen


def memory_field(name: str) -> int:
    """A field of this process's `/proc/self/status`, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}; this measurement needs Linux.")


def output_of(command: Sequence[str], failed: str) -> str:
    """What a command prints, which nothing disturbs. Raises `EngineError` with its last words, after `failed`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{failed}: {_reason(done.returncode, done.stderr)}")
    return done.stdout


def run_watched(command: Sequence[str], what: str) -> Watched:
    """Run a command to its end. Raises `EngineError` with its last words, or the signal that ended it."""
    begun, before, peak = time.perf_counter(), _children_seconds(), 0
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        try:
            while process.poll() is None:
                peak = max(peak, tree_bytes(process.pid))
                time.sleep(_EVERY)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - begun
        if process.returncode:
            raise EngineError(f"{what} failed: {_reason(process.returncode, _read(errors))}")
        return Watched(_read(output), seconds, _children_seconds() - before, peak)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _reason(code: int, errors: str) -> str:
    if code < 0:
        return f"signal {-code} ended it" + (", as when memory runs out." if code == -9 else ".")
    return (errors.strip().splitlines() or ["it gave no reason"])[-1][-_SAID:]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_bytes(process: int) -> int:
    """Resident bytes of a process and of all that descend from it; what has ended has none."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])  # a name may hold anything, brackets too
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, waiting = 0, [process]
    while waiting:
        current = waiting.pop()
        found += _resident_bytes(current)
        waiting += children.get(current, [])
    return found


def _resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
