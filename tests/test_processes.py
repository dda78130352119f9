"""Work in several processes: order, errors, and processes that end."""

from __future__ import annotations

import os
import time

import pytest

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.processes import map_in_processes


def identity_of(number: int) -> tuple[int, int]:
    """The number, and the process that had it."""
    return number, os.getpid()


def fail(number: int) -> None:
    """Raise with the number."""
    raise KeyError(number)


def end(number: int) -> None:
    """End the process at once, as the system does when memory runs out."""
    os._exit(number)


def mark(folder: str, name: str) -> None:
    """Leave a file, after a while."""
    time.sleep(0.2)
    open(os.path.join(folder, name), "w").close()


def test_one_process_is_this_one() -> None:
    """Nothing is started for it."""
    assert list(map_in_processes(identity_of, [(1,), (2,)], 1)) == [(1, os.getpid()), (2, os.getpid())]


def test_results_come_in_order_from_others() -> None:
    """Whichever process was done first."""
    numbers, processes = zip(*map_in_processes(identity_of, [(n,) for n in range(6)], 2), strict=True)
    assert numbers == tuple(range(6))
    assert os.getpid() not in processes


def test_an_error_comes_through() -> None:
    """As it was raised."""
    with pytest.raises(KeyError, match="7"):
        list(map_in_processes(fail, [(7,)], 2))


def test_a_process_that_ends_is_an_error() -> None:
    """With what may have been the reason."""
    with pytest.raises(JukeboxError, match="memory ran out"):
        list(map_in_processes(end, [(3,), (3,)], 2))


def test_no_further_call_begins_once_nobody_wants_results(tmp_path: pytest.TempPathFactory) -> None:
    """A caller that stops after the first result does not wait for all."""
    results = map_in_processes(mark, [(str(tmp_path), str(n)) for n in range(40)], 2)
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert len(os.listdir(str(tmp_path))) < 20
