"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jukebox_deploy import files
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.files import (
    atomic_directory,
    atomic_path,
    remove_leftovers,
    replaced_directory,
    restore_directory,
    scratch_folder,
    sha256_of_file,
    sha256_of_pieces,
    write_json_atomic,
)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_half_way(path: Path, error: BaseException | type[BaseException]) -> None:
    path.write_bytes(b"half")
    raise error


def test_a_file_appears_only_at_the_end(tmp_path):
    target = tmp_path / "new" / "song.wav"
    with atomic_path(target) as partial:
        assert partial.suffix == ".wav"
        partial.write_bytes(b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert os.listdir(target.parent) == ["song.wav"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "song.wav"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_path(target) as partial:
        fail_half_way(partial, error)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["song.wav"]


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_is_explained(tmp_path, monkeypatch, where):
    if where == "fsync":
        monkeypatch.setattr(os, "fsync", full_disk)
    target = tmp_path / "song.wav"
    body = full_disk if where == "write" else target.exists
    with pytest.raises(JukeboxError, match=r"song\.wav.*disk is full"), atomic_path(target):
        body()
    assert os.listdir(tmp_path) == []


def test_a_real_limit_on_file_sizes_is_explained(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from jukebox_deploy.files import *\n"
        "from jukebox_deploy.errors import JukeboxError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with atomic_path(Path(sys.argv[1])) as p: p.write_bytes(bytes(2000))\n"
        "except JukeboxError as error: print(error)\n"
    )
    target = tmp_path / "big.bin"
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert "larger than this system allows" in done.stdout
    assert os.listdir(tmp_path) == []


def test_windows_flushes_files_that_are_open_for_writing_and_no_folders(tmp_path, monkeypatch):
    opened, real = [], os.open

    def open_and_note(path, flags):
        opened.append((Path(path).name, flags))
        return real(path, flags)

    monkeypatch.setattr(files, "_WINDOWS", True)
    monkeypatch.setattr(os, "open", open_and_note)
    with atomic_directory(tmp_path / "bundle") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "a").write_text("a")
    assert opened == [("a", os.O_RDWR)]
    assert (tmp_path / "bundle" / "deep" / "a").read_text() == "a"


def test_other_errors_of_the_body_pass(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()


def test_a_file_in_the_way_of_a_folder_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JukeboxError, match="is a file, not a folder"), atomic_path(tmp_path / "file" / "x"):
        pass


def test_a_folder_appears_only_at_the_end(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()  # empty is as good as absent
    with atomic_directory(target) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "a").write_text("a")
        assert os.listdir(target) == []
    assert (target / "deep" / "a").read_text() == "a"
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_full_disk_names_what_was_asked_for_and_no_hidden_folder(tmp_path):
    target = tmp_path / "bundle"
    with pytest.raises(JukeboxError) as raised, atomic_directory(target) as outer, atomic_path(outer / "x.engine"):
        full_disk()
    assert str(raised.value).startswith(f"{target}: could not be written: the disk is full")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # as from a process that builds


def test_a_full_disk_elsewhere_is_not_that_of_the_folder(tmp_path):
    other = tmp_path / "other.json"
    with pytest.raises(JukeboxError) as raised, atomic_directory(tmp_path / "bundle"), atomic_path(other):
        full_disk()
    assert str(raised.value).startswith(f"{other}: could not be written")


def test_a_folder_that_was_taken_in_the_meantime_stays(tmp_path):
    target = tmp_path / "bundle"
    with (
        pytest.raises(JukeboxError, match=r"bundle: could not be written: something else was put there"),
        atomic_directory(target) as partial,
    ):
        (partial / "ours").write_text("")
        target.mkdir()
        (target / "theirs").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "theirs"]


@pytest.mark.parametrize("make", [atomic_directory, replaced_directory])
def test_a_link_stands_for_its_folder(tmp_path, make):
    link, folder = tmp_path / "link", tmp_path / "disk" / "bundle"
    folder.mkdir(parents=True)
    link.symlink_to(folder)
    with make(link) as fresh:
        fresh.mkdir(exist_ok=True)
        (fresh / "a").write_text("a")
    assert link.is_symlink()
    assert (folder / "a").read_text() == "a"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which nobody can create anything")
@pytest.mark.parametrize("make", [atomic_path, atomic_directory])
def test_a_place_where_nothing_can_be_created_is_explained(make):
    with pytest.raises(JukeboxError, match="nothing can be created there"), make(Path("/proc/bundle")):
        pass


def test_a_failed_folder_leaves_nothing(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(JukeboxError, match="disk is full"), atomic_directory(tmp_path / "bundle") as partial:
        fail_half_way(partial / "a", error)
    assert os.listdir(tmp_path) == []


def test_a_taken_folder_is_refused_untouched(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(JukeboxError, match="not empty"), atomic_directory(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["mine"]


KILLED = """
import sys, time; from pathlib import Path; from jukebox_deploy.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half"); print("writing", flush=True); time.sleep(60)
"""


def test_a_killed_run_leaves_the_old_file(tmp_path):
    target = tmp_path / "codes.npy"
    target.write_bytes(b"old")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait(timeout=30)
    assert target.read_bytes() == b"old"


def old_bundle(folder: Path) -> Path:
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "a").write_text("old")
    return bundle


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path):
    bundle = old_bundle(tmp_path)
    with replaced_directory(bundle) as fresh:
        fresh.mkdir()
        (fresh / "b").write_text("new")
        assert (bundle / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]
    assert os.listdir(bundle) == ["b"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_folder_that_was_not_replaced_is_as_it_was(tmp_path, monkeypatch, renames):
    bundle, replace = old_bundle(tmp_path), os.replace
    done: list[object] = []

    def failing(source, target):
        if len(done) == renames:
            done.append("failed")
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt), replaced_directory(bundle) as fresh:
        fresh.mkdir()
    assert os.listdir(tmp_path) == ["bundle"]
    assert os.listdir(bundle) == ["a"]


KILLED_IN_EXCHANGE = """
import os, sys; from pathlib import Path; from jukebox_deploy.files import replaced_directory
replace, left = os.replace, [int(sys.argv[2])]
def dying(*names):
    if not left[0]: os.kill(os.getpid(), 9)
    left[0] -= 1
    replace(*names)
os.replace = dying
with replaced_directory(Path(sys.argv[1])) as fresh: fresh.mkdir()
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_folder_whose_replacement_was_killed_is_restored(tmp_path, renames):
    bundle = old_bundle(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED_IN_EXCHANGE, str(bundle), str(renames)])
    assert done.returncode == -9
    assert bundle.exists() == (renames == 0)
    restore_directory(bundle)
    remove_leftovers(tmp_path, age=0)
    assert os.listdir(tmp_path) == ["bundle"]
    assert os.listdir(bundle) == ["a"]


def test_leftovers_go_when_nobody_writes_to_them_any_more(tmp_path):
    for name, age in {"song": 0, ".partial-1-live": 0, ".partial-2-dead": 7200, "old": 7200}.items():
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    for name in (".partial-3-dead", ".partial-4-live"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(time.time() - 7200,) * 2)
    (tmp_path / ".partial-4-live" / "weights").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".partial-1-live", ".partial-4-live", "old", "song"]


KILLED_WITH_FOLDERS = """
import sys, time; from pathlib import Path; from jukebox_deploy.files import atomic_directory, scratch_folder
out = Path(sys.argv[1])
with scratch_folder(out) as scratch, atomic_directory(out) as part:
    (scratch / "a").write_bytes(b"a"); (part / "b").write_bytes(b"b")
    print("writing", flush=True); time.sleep(60)
"""


@pytest.fixture
def begin():
    """Start processes that are in the midst of a folder; none is left afterwards."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(out: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", KILLED_WITH_FOLDERS, out], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


@pytest.mark.parametrize("writer", [atomic_directory, replaced_directory, scratch_folder])
def test_the_next_run_removes_what_a_killed_one_left(tmp_path, begin, writer):
    process = begin(tmp_path / "out")
    left = hidden(tmp_path)
    assert len(left) == 2
    process.kill()
    process.wait()
    with writer(tmp_path / "out") as folder:
        folder.mkdir(exist_ok=True)
        assert not left & hidden(tmp_path)
    assert not hidden(tmp_path)


def test_what_others_are_writing_or_is_for_another_name_stays(tmp_path, begin):
    """Two runs for one folder, and one for another whose name ends alike."""
    begin(tmp_path / "out")
    living = hidden(tmp_path)
    other = begin(tmp_path / "00000000-out")
    foreign = hidden(tmp_path) - living
    other.kill()
    other.wait()
    with atomic_directory(tmp_path / "out") as part, scratch_folder(tmp_path / "out"):
        assert living | foreign < hidden(tmp_path)
        assert part.is_dir()  # for it is written by this very process
    assert hidden(tmp_path) == living | foreign
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == living


def test_a_scratch_folder_without_locks_goes_when_it_is_old(tmp_path, monkeypatch):
    """On a file system that has none, another process may live."""
    monkeypatch.setattr("fcntl.flock", full_disk)
    old, new = (tmp_path / f".partial-0000000{number}-out" for number in range(2))
    old.mkdir()
    new.mkdir()
    os.utime(old, times=(time.time() - 2 * 86400,) * 2)
    with scratch_folder(tmp_path / "out") as scratch:
        assert os.listdir(scratch) == []
        assert hidden(tmp_path) == {new.name, scratch.name}
    assert hidden(tmp_path) == {new.name}


def test_names_of_folders_are_no_patterns(tmp_path):
    (left := tmp_path / ".partial-01234567-out1").mkdir()
    os.utime(left, times=(0, 0))
    with scratch_folder(tmp_path / "out[1]"):
        assert left.exists()


def test_json_and_hash(tmp_path):
    path = tmp_path / "a.json"
    write_json_atomic(path, {"name": "Björk", "n": [1, 2]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Björk", "n": [1, 2]}
    assert "Björk" in path.read_text(encoding="utf-8")
    path.write_bytes(b"abc")
    assert sha256_of_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_that_cannot_be_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000, 3 * 2**20 + 7])
@pytest.mark.parametrize("piece", [100, 2**20 + 1])
def test_pieces_have_the_hashes_of_their_bytes(tmp_path, size, piece):
    content = bytes(i * i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(content)
    expected = [hashlib.sha256(content[start : start + piece]).hexdigest() for start in range(0, size, piece)]
    assert list(sha256_of_pieces(tmp_path / "file", piece)) == expected
