"""Work that one core does alone, on several cores: fresh processes that end with the work."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from jukebox_deploy.errors import JukeboxError

_Result = TypeVar("_Result")


def map_in_processes(
    function: Callable[..., _Result], calls: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[_Result]:
    """The results of a function of a module, called with each of `calls`, in their order.

    With one process the calls run here. After Ctrl-C, or once the caller wants no more results, no
    further call begins. Raises what the function raises, and `JukeboxError` if a process ended.
    """
    if processes == 1:
        yield from (function(*call) for call in calls)
        return
    # A forked torch may hang in its thread pools; a spawned one starts clean. Ctrl-C reaches the whole
    # group of processes; the caller's own process is the one that answers it.
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield from pool.map(_call, [function] * len(calls), calls)
    except BrokenProcessPool as error:
        raise JukeboxError(
            "a process that worked in parallel ended: memory ran out, or the calling script does work when it is "
            'imported (put it under `if __name__ == "__main__":`). One process is enough: --processes 1.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _call(function: Callable[..., _Result], arguments: tuple[Any, ...]) -> _Result:
    return function(*arguments)
