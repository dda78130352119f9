"""`--force`: the old folder stays until the new one is there, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.errors import JukeboxError

MARK = "mark"


def is_ours(folder: Path) -> bool:
    return (folder / MARK).is_file()


def write(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / MARK).write_text(text)


def replace(out: Path, *, force: bool = True) -> None:
    with replacing(out, force=force, is_ours=is_ours, inputs=[]) as fresh:
        write(fresh, "new")


def contents(parent: Path) -> dict[str, str]:
    return {folder.name: (folder / MARK).read_text() for folder in parent.iterdir()}


def test_the_old_folder_is_gone_when_the_new_one_is_there(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    replace(tmp_path / "out")
    assert contents(tmp_path) == {"out": "new"}


def test_the_old_folder_is_in_its_place_until_the_new_one_is_there(tmp_path: Path) -> None:
    """So nothing is lost if the process is killed, and others can use it in the meantime."""
    out = tmp_path / "out"
    write(out, "old")
    with replacing(out, force=True, is_ours=is_ours, inputs=[]) as fresh:
        write(fresh, "new")
        assert (out / MARK).read_text() == "old"
    assert contents(tmp_path) == {"out": "new"}


def test_a_link_stands_for_its_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "out", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "disk") == {"out": "new"}


def test_the_old_folder_is_back_when_the_new_one_fails(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "out", force=True, is_ours=is_ours, inputs=[]):
        _ = 1 / 0
    assert contents(tmp_path) == {"out": "old"}


@pytest.mark.parametrize("force", [True, False])
def test_what_a_killed_process_moved_aside_is_put_back(tmp_path: Path, force: bool) -> None:
    write(tmp_path / ".replaced-out", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "out", force=force, is_ours=is_ours, inputs=[]):
        _ = 1 / 0
    assert contents(tmp_path) == {"out": "old"}


def test_what_a_killed_process_replaced_is_removed(tmp_path: Path) -> None:
    write(tmp_path / ".replaced-out", "old")
    write(tmp_path / "out", "new")
    with pytest.raises(FileExistsError):
        replace(tmp_path / "out", force=False)
    assert contents(tmp_path) == {"out": "new"}


def test_an_empty_folder_in_its_place_does_not_cost_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / ".replaced-out", "old")
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "out", force=True, is_ours=is_ours, inputs=[]):
        _ = 1 / 0
    assert contents(tmp_path) == {"out": "old"}


def test_somebody_elses_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letters").touch()
    with pytest.raises(JukeboxError, match="--force replaces only what this command made"):
        replace(tmp_path / "out")
    assert (tmp_path / "out" / "letters").is_file()
