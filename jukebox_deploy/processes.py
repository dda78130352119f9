"""Parallel calls in fresh processes, which end with the work or with their parent process."""

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
_GRACE = 1.0  # seconds that a terminated process has to remove its unfinished files
_GRACE_WITHOUT_PARENT = 10.0  # the same, if nobody waits for it


def map_in_processes(
    function: Callable[..., _Result], calls: Sequence[tuple[Any, ...]], processes: int
) -> Generator[_Result, None, None]:
    """Call a module-level function with each tuple of arguments in `calls`; yield the results in order.

    With one process, the calls run in this process. Otherwise a process that is done gets its next call when the
    caller asks for a result. After an error, on Ctrl-C, or if the caller closes the generator, all processes are ended
    even if they are working; they also end if this process is killed. Raises what the function raises, and
    `JukeboxError` if a process ended unexpectedly.
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
                worker, number = running.pop(ready)  # type: ignore[call-overload]  # only connections were passed in
                done[number] = worker.outcome()
                hand_out(worker)
        result, error = done.pop(wanted)
        if error is not None:
            raise error
        yield result


@dataclass(frozen=True)
class _Worker:
    """A process that runs one call after another."""

    process: BaseProcess
    connection: Connection

    def begin(self, function: Callable[..., Any], call: tuple[Any, ...]) -> None:
        """Send a call to the process. Raises `JukeboxError` if the process has ended."""
        with _explained():
            self.connection.send((function, call))

    def outcome(self) -> tuple[Any, BaseException | None]:
        """Receive the result of the call, or the error it raised. Raises `JukeboxError` if the process has ended."""
        with _explained():
            data = self.connection.recv_bytes()
        outcome: tuple[Any, BaseException | None] = pickle.loads(data)
        return outcome


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:  # OSError if it ended while sending
        raise JukeboxError(
            "a worker process ended unexpectedly: memory ran out, or the calling script does work when it is imported "
            '(put it under `if __name__ == "__main__":`). To work in this process alone, use --processes 1 (in a '
            "program: processes=1)."
        ) from error


@contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    """Yield `count` processes that are ended with the block: terminated after an error, else when they are idle.

    The pools of the standard library wait for calls that are running, and may hang if a process is killed while it
    sends a result.
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
    # Forked processes inherit torch's thread pools and may hang in them; spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # the process then has the only other end, so the connection breaks if it ends
    return _Worker(process, ours)


def _end(workers: Sequence[_Worker]) -> None:
    """Wait for all processes to end, and kill those that do not within the grace period."""
    for worker in workers:
        worker.connection.close()  # ends a process that waits for a call
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection) -> None:
    """Run calls until the connection is closed: the main function of a worker process."""
    # Ctrl-C is sent to the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent has ended or closed the connection
        while True:
            function, call = connection.recv()
            connection.send_bytes(_outcome_of(function, call))


def _end_with_parent() -> None:
    """End this process when its parent ends: a killed parent cannot end its workers itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_WITHOUT_PARENT)
    os._exit(1)


def _outcome_of(function: Callable[..., Any], call: tuple[Any, ...]) -> bytes:
    """Run a call and return its result or error, pickled."""
    try:
        return pickle.dumps((function(*call), None))
    except (Exception, KeyboardInterrupt) as error:  # KeyboardInterrupt if the function handles Ctrl-C itself
        error.add_note(f"In another process:\n{traceback.format_exc()}")
        try:
            data = pickle.dumps((None, error))
            pickle.loads(data)  # some errors can be pickled but not unpickled
        except Exception:
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
        return data
