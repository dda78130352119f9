"""Memory of this process, and time and memory of commands with all their processes. Linux only."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jukebox_deploy.errors import EngineError

_POLL_SECONDS = 0.5  # between two readings of the memory, which take some milliseconds each
_REASON_LENGTH = 400  # characters of a failed command's error output that are repeated
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class WatchedRun:
    """Output and cost of a command that has succeeded.

    Memory is resident memory: it includes mapped files, and counts shared pages once per process.
    """

    output: str
    wall_seconds: float
    cpu_seconds: float  # sum over all processes
    peak_tree_bytes: int  # largest sum over all processes in any reading


def memory_field(name: str) -> int:
    """Return a field of this process's `/proc/self/status` in bytes. Raises `EngineError` if there is none."""
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    for line in lines:
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise EngineError(f"{_STATUS} has no {name}; memory can be measured on Linux only.")


def output_of(command: Sequence[str], failed: str) -> str:
    """Run a command without watching it, and return its standard output.

    Raises `EngineError` if it fails; the message is `failed` and the last line of the command's error output.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{failed}: {_reason(done.returncode, done.stderr)}")
    return done.stdout


def run_watched(command: Sequence[str], what: str) -> WatchedRun:
    """Run a command and watch its time and memory. On Ctrl-C, all its processes are killed.

    Raises `EngineError` if it fails; the message begins with `what` and ends with the last line of the command's error
    output, or the signal that killed it.
    """
    begun, before, peak = time.perf_counter(), _children_seconds(), 0
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        try:
            while process.poll() is None:
                peak = max(peak, tree_bytes(process.pid))
                time.sleep(_POLL_SECONDS)
        except BaseException:
            for one in _tree(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - begun
        if process.returncode:
            raise EngineError(f"{what} failed: {_reason(process.returncode, _read(errors))}")
        return WatchedRun(_read(output), seconds, _children_seconds() - before, peak)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _reason(code: int, errors: str) -> str:
    """Return why a command failed, from its exit status and its error output."""
    if code < 0:
        return f"it was killed by signal {-code}" + (", perhaps because memory ran out." if code == -9 else ".")
    return (errors.strip().splitlines() or [f"exit status {code}, without an error message."])[-1][-_REASON_LENGTH:]


def _children_seconds() -> float:
    """Return the processor time of all child processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_bytes(process: int) -> int:
    """Return the resident bytes of a process and all its descendants; a process that has ended counts as 0."""
    return sum(map(_resident_bytes, _tree(process)))


def _tree(process: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])  # the name before may contain brackets
        except OSError:  # the process has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [process]
    for parent in found:  # which grows meanwhile
        found += children.get(parent, [])
    return found


def _resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
