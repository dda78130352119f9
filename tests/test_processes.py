"""Work in several processes: order, errors, and processes that end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.files import atomic_path
from jukebox_deploy.processes import map_in_processes
from tests.source_tree import REPOSITORY


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


def linger(folder: str) -> None:
    """Leave the number of the process, and begin a file that will not be finished."""
    with atomic_path(Path(folder) / "half"):
        open(os.path.join(folder, str(os.getpid())), "w").close()
        time.sleep(600)


def linger_over_the_second(folder: str, number: int) -> None:
    """Do the first call at once."""
    if number:
        linger(folder)


class TwoPartError(Exception):
    """An error that pickle cannot bring back."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def fail_oddly(number: int) -> None:
    """Raise what does not survive pickling."""
    raise TwoPartError("this", "that")


def nothing_to_send(number: int) -> object:
    """A result that cannot be pickled."""
    return lambda: number


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


def test_no_further_call_begins_once_nobody_wants_results(tmp_path: Path) -> None:
    """A caller that stops after the first result does not wait for all."""
    results = map_in_processes(mark, [(str(tmp_path), str(n)) for n in range(40)], 2)
    next(results)
    results.close()
    assert len(os.listdir(str(tmp_path))) < 20


def test_results_wait_for_their_turn() -> None:
    """Also with more processes than calls, and with results that no pipe holds at once."""
    calls = [(b"x" * size,) for size in (3_000_000, 0, 1)]
    assert list(map_in_processes(bytes, calls, 5)) == [call[0] for call in calls]
    assert list(map_in_processes(bytes, [], 2)) == []


def test_an_error_says_where_it_was_raised() -> None:
    """The traceback of another process is a note."""
    with pytest.raises(KeyError) as caught:
        list(map_in_processes(fail, [(7,)], 2))
    assert "in fail" in caught.value.__notes__[0]


def test_what_cannot_be_pickled_is_told() -> None:
    """And nobody is said to have ended."""
    with pytest.raises(RuntimeError, match="TwoPartError: this and that"):
        list(map_in_processes(fail_oddly, [(1,)], 2))
    with pytest.raises((AttributeError, TypeError, ValueError), match=r"nothing_to_send|pickle"):
        list(map_in_processes(nothing_to_send, [(1,)], 2))


def lives(process: int) -> bool:
    """Whether a process still does something."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def require_none_left(processes: list[int], seconds: float = 10.0) -> None:
    """All of them end soon."""
    deadline = time.monotonic() + seconds
    while any(map(lives, processes)):
        assert time.monotonic() < deadline, f"{processes} go on"
        time.sleep(0.02)


def workers_in(folder: Path, count: int) -> list[int]:
    """The numbers that `linger` left, once there are so many."""
    deadline = time.monotonic() + 60
    while len(found := [int(path.name) for path in folder.iterdir() if path.name.isdigit()]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_running_calls_are_ended_when_nobody_wants_results(tmp_path: Path) -> None:
    """At once, and what they had begun is gone."""
    results = map_in_processes(linger_over_the_second, [(str(tmp_path), 0), (str(tmp_path), 1)], 2)
    next(results)
    workers = workers_in(tmp_path, 1)
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 10
    require_none_left(workers, seconds=0)
    assert os.listdir(tmp_path) == [str(workers[0])]


PARENT = """
import os, signal, sys
from jukebox_deploy.processes import map_in_processes
from tests.test_processes import linger
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell script's background has not
list(map_in_processes(linger, [(sys.argv[1],)] * 2, 2))
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose two workers never finish, in a group of its own; and none of it afterwards."""
    process = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], cwd=REPOSITORY, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def of_group(group: int) -> list[int]:
    """All living processes of a group, the tracker of resources too."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [number for number in numbers if lives(number) and _group_of(number) == group]


def _group_of(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at the processes of a system with /proc")
class TestEndOfTheParent:
    """Workers do not outlive it, however it ends, and clean up."""

    @pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
    def test_workers_end_with_a_parent_that_is_killed(
        self, parent: subprocess.Popen[bytes], tmp_path: Path, by: signal.Signals
    ) -> None:
        """Which cannot do anything for it."""
        workers = workers_in(tmp_path, 2)
        assert len(of_group(parent.pid)) >= 3
        parent.send_signal(by)
        parent.wait(10)
        require_none_left([*workers, *of_group(parent.pid)])
        assert sorted(os.listdir(tmp_path)) == sorted(map(str, workers))

    @pytest.mark.parametrize("to_group", [False, True])
    def test_an_interruption_does_not_wait_for_workers(
        self, parent: subprocess.Popen[bytes], tmp_path: Path, to_group: bool
    ) -> None:
        """Ctrl-C of a terminal goes to all."""
        workers = workers_in(tmp_path, 2)
        (os.killpg if to_group else os.kill)(parent.pid, signal.SIGINT)
        assert parent.wait(10) != 0
        require_none_left(workers, seconds=0)
        require_none_left(of_group(parent.pid))
        assert sorted(os.listdir(tmp_path)) == sorted(map(str, workers))
