"""Number of usable cores, and parallel calls in threads with results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


_CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Linux's folder with the limits of this process's control group; in a container, those of the container."""


def usable_cores() -> int:
    """Return the number of cores that this process may use; it can be less than that of the machine.

    These are the cores that it may run on, or as many as its processor time amounts to if that is limited to less (as
    by `docker run --cpus`), rounded up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else min(cores, quota)


def _quota() -> int | None:
    """Return the limit of processor time as a number of cores, rounded up; `None` without a limit."""
    version_2 = _numbers("cpu.max")  # "max 100000" without a limit
    version_1 = (*_numbers("cpu/cpu.cfs_quota_us"), *_numbers("cpu/cpu.cfs_period_us"))  # -1 without a limit
    for limit in (version_2, version_1):
        match limit:
            case (quota, period) if quota > 0 and period > 0:
                return -(-quota // period)
    return None


def _numbers(file: str) -> tuple[int, ...]:
    """Return the whole numbers in a file of the control group; none if there is no such file."""
    try:
        words = (_CONTROL_GROUP / file).read_text(encoding="ascii").split()
        return tuple(int(word) for word in words)
    except (OSError, ValueError):
        return ()


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int, ahead: int
) -> Generator[_Result, None, None]:
    """Call a function with each of `items` in threads; yield the results in order.

    For functions that release the global interpreter lock. While the caller works on a result, at most `ahead` more
    are being computed or wait to be consumed. An error of a call is raised in place of its result. No thread is left
    when the generator ends or is closed.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
