"""How many cores there are to use, and calls in several threads whose results come in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def usable_cores() -> int:
    """Cores that this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int, ahead: int
) -> Generator[_Result, None, None]:
    """The results of a function for each of `items`, in their order; for work that releases Python's lock.

    While the caller works on a result, at most `ahead` more are made or wait to be taken. An error
    of a call comes in place of its result. No thread is left when the generator ends or is closed.
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
