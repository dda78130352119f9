"""Work that one core does alone, on several cores: fresh processes that end with the work, and with their parent."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from jukebox_deploy.errors import JukeboxError

_Result = TypeVar("_Result")
_GRACE = 1.0  # seconds in which a process that is to end may remove what it has begun


def map_in_processes(
    function: Callable[..., _Result], calls: Sequence[tuple[Any, ...]], processes: int
) -> Generator[_Result, None, None]:
    """The results of a function of a module, called with each of `calls`, in their order.

    With one process the calls run here. A process gets its next call when the caller wants a result. After Ctrl-C,
    or once the caller wants no more results, all processes are ended, whatever they do; they also end if this one
    is killed. Raises what the function raises, and `JukeboxError` if a process ended.
    """
    if processes == 1:
        yield from (function(*call) for call in calls)
        return
    with _workers(min(processes, len(calls))) as workers:
        yield from _in_order(workers, function, calls)


def _in_order(
    workers: Sequence[_Worker], function: Callable[..., _Result], calls: Sequence[tuple[Any, ...]]
) -> Iterator[_Result]:
    todo = iter(enumerate(calls))
    running: dict[Connection, tuple[_Worker, int]] = {}
    done: dict[int, tuple[Any, BaseException | None]] = {}

    def hand_out(worker: _Worker) -> None:
        for number, call in todo:
            worker.begin(function, call)
            running[worker.connection] = worker, number
            return

    for worker in workers:
        hand_out(worker)
    for wanted in range(len(calls)):
        while wanted not in done:
            for ready in wait(list(running)):
                worker, number = running.pop(ready)  # type: ignore[call-overload]  # nothing but connections was given
                done[number] = worker.outcome()
                hand_out(worker)
        result, error = done.pop(wanted)
        if error is not None:
            raise error
        yield result


@dataclass(frozen=True)
class _Worker:
    """A process that does one call after the other."""

    process: BaseProcess
    connection: Connection

    def begin(self, function: Callable[..., Any], call: tuple[Any, ...]) -> None:
        """Have a call done. Raises `JukeboxError` if the process has ended."""
        with _explained():
            self.connection.send((function, call))

    def outcome(self) -> tuple[Any, BaseException | None]:
        """The result of the call, or the error that it raised. Raises `JukeboxError` if the process has ended."""
        with _explained():
            data = self.connection.recv_bytes()
        outcome: tuple[Any, BaseException | None] = pickle.loads(data)
        return outcome


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:  # the latter amid an answer
        raise JukeboxError(
            "a process that worked in parallel ended: memory ran out, or the calling script does work when it is "
            'imported (put it under `if __name__ == "__main__":`). One process is enough: --processes 1.'
        ) from error


@contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    """So many processes, which are gone when the block ends: at once after an error, else when they are idle.

    The library's own pools wait for what runs already, and may hang when a process is killed while it answers.
    """
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_start())
        yield workers
    except BaseException:
        for worker in workers:
            worker.process.terminate()
        raise
    finally:
        _end(workers)


def _start() -> _Worker:
    # A forked torch may hang in its thread pools; a spawned one starts clean.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return _Worker(process, ours)


def _end(workers: Sequence[_Worker]) -> None:
    """See all of them off; none has long to go."""
    for worker in workers:
        worker.connection.close()  # which ends one that waits for a call
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection) -> None:
    """Do calls until there are no more: what a process of ours runs."""
    # Ctrl-C reaches the whole group of processes; the parent is the one that answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone, or wants no more
        while True:
            function, call = connection.recv()
            connection.send_bytes(_outcome_of(function, call))


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes, and nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _outcome_of(function: Callable[..., Any], call: tuple[Any, ...]) -> bytes:
    """The pickled result, or error, of a call."""
    try:
        return pickle.dumps((function(*call), None))
    except (Exception, KeyboardInterrupt) as error:  # the latter where the function answers Ctrl-C itself
        error.add_note(f"In another process:\n{traceback.format_exc()}")
        try:
            data = pickle.dumps((None, error))
            pickle.loads(data)  # which some errors do not survive
        except Exception:
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
        return data
