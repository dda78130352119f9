from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.errors import SamplingError
from jukebox_deploy.runtime import store as store_module
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongLengths, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, SongRecord, SongStore, holds_song, read_codes, read_record

RECORD = SongRecord(
    "tiny",
    Fingerprint("e", "c"),
    SongRequest(Mode.PRIMED, 3.0, "Añá", lyrics="one\ntwo", source="a.wav", levels=(LevelSettings(0.7, top_p=0.9),)),
    SongLengths(given=(4, 1), totals=(40, 10)),
)
GIVEN = [np.arange(4), np.arange(1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "songs" / "song"
    with SongStore(folder) as store:
        store.begin(RECORD, GIVEN)
    return folder


def test_a_record_comes_back_as_it_was(folder: Path) -> None:
    assert read_record(folder) == RECORD
    with SongStore(folder) as store:
        assert store.resume(RECORD.request, RECORD.fingerprint) == RECORD
        assert [store.codes(level, RECORD.lengths).tolist() for level in (0, 1)] == [[0, 1, 2, 3], [0]]


def test_codes_are_replaced_as_a_whole(folder: Path) -> None:
    with SongStore(folder) as store:
        store.commit(1, np.array([0, -3, 5]))
        assert store.codes(1, RECORD.lengths).tolist() == [0, -3, 5]
    assert read_codes(folder, 1, 6).tolist() == [0, 0, 5]
    assert np.load(folder / "codes_1.npy").dtype == np.int32


def test_what_a_killed_run_had_begun_to_write_is_removed(folder: Path) -> None:
    (folder / ".partial-0123abcd-codes_1.npy").touch()
    with SongStore(folder):
        assert not list(folder.glob(".partial-*"))


def test_a_folder_is_locked_while_it_is_open_and_free_after(folder: Path) -> None:
    with SongStore(folder):
        with pytest.raises(SamplingError, match="another run"), SongStore(folder):
            pass
        with pytest.raises(SamplingError, match="another run"), SongStore(folder):
            pass
    with SongStore(folder):
        assert holds_song(folder)


@pytest.mark.parametrize("windows", [False, True])
def test_the_lock_is_removed_before_it_is_released_but_on_windows_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: bool
) -> None:
    done: list[str] = []
    close, unlink = os.close, Path.unlink

    def note_close(descriptor: int) -> None:
        done.append("close")
        close(descriptor)

    def note_unlink(path: Path, missing_ok: bool = False) -> None:
        done.append("unlink")
        unlink(path, missing_ok)

    monkeypatch.setattr(store_module, "_WINDOWS", windows)
    monkeypatch.setattr(os, "close", note_close)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    with SongStore(tmp_path / "song"):
        done.clear()
    assert done == (["close", "unlink"] if windows else ["unlink", "close"])
    assert not (tmp_path / "song").exists()


def test_a_run_that_finds_the_folder_locked_leaves_the_lock(tmp_path: Path) -> None:
    with SongStore(tmp_path / "song"):
        for _ in range(2):
            with pytest.raises(SamplingError, match="another run"), SongStore(tmp_path / "song"):
                pass


def test_a_folder_without_a_song_is_not_left_behind(tmp_path: Path) -> None:
    with SongStore(tmp_path / "song"):
        assert not holds_song(tmp_path / "song")
    assert not (tmp_path / "song").exists()


def test_other_files_in_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with SongStore(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "song").touch()
    with pytest.raises(SamplingError, match="cannot be used as a song folder"), SongStore(tmp_path / "song"):
        pass


def test_a_second_song_is_refused(folder: Path) -> None:
    with SongStore(folder) as store, pytest.raises(SamplingError, match="already holds a song"):
        store.begin(RECORD, GIVEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:40], "not a readable JSON document"),
        (lambda text: "[]", "has the format None"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "has the format 2, expected 1"),
        (lambda text: text.replace('"seed": 0', '"seed": "x"'), "damaged: song.json.request.seed"),
        (lambda text: text.replace('"seed": 0', '"sed": 0'), "unknown keys"),
        (lambda text: "[" * 100_000, "damaged: it is nested too deeply"),
    ],
)
def test_a_damaged_record_is_refused(change, message: str, folder: Path) -> None:
    path = folder / "song.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(SamplingError, match=message):
        read_record(folder)


def test_a_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="nowhere: there is no such song folder"):
        read_record(tmp_path / "nowhere")
    with pytest.raises(SamplingError, match=r"is not a song folder: it contains no song\.json"):
        read_record(tmp_path)


def test_what_differs_is_told_as_the_record_has_it(folder: Path) -> None:
    request = SongRequest(Mode.ANCESTRAL, 3.0, "Añá", lyrics="one\ntwo", levels=RECORD.request.levels)
    with SongStore(folder) as store, pytest.raises(SamplingError, match="mode was 'primed', is now 'ancestral'; "):
        store.resume(request, RECORD.fingerprint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable .npy file of codes"),
        (b"\x93NUMPY garbage", "not a readable .npy file of codes"),
        (np.zeros((2, 3), np.int32), "one-dimensional array of integers"),
        (np.zeros(5), "one-dimensional array of integers"),
        (np.zeros(2, np.int32), "holds 2 codes, expected 4 to 40"),
        (np.zeros(41, np.int32), "holds 41 codes, expected 4 to 40"),
    ],
)
def test_damaged_codes_are_refused(content, message: str, folder: Path) -> None:
    path = folder / "codes_0.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with SongStore(folder) as store, pytest.raises(SamplingError, match=message):
        store.codes(0, RECORD.lengths)


def test_codes_of_another_codebook_are_refused(folder: Path) -> None:
    with pytest.raises(SamplingError, match="holds code 3, but the codebook of this model has 3 codes"):
        read_codes(folder, 0, 3)


def test_levels_without_codes_are_empty(folder: Path) -> None:
    assert len(read_codes(folder, 2, 10)) == 0
    assert json.loads((folder / "song.json").read_text())["request"]["artist"] == "Añá"
