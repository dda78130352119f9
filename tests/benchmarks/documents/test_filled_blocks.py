"""Blocks between markers are filled, and only they."""

from __future__ import annotations

from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.documents.filled_blocks import Block, escaped, fill
from jukebox_deploy.errors import JukeboxError

ONE = Block("page.md", "one", lambda repository: f"first of {repository.name}")
TWO = Block("page.md", "two", lambda repository: "second")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "page.md").write_text(f"a\n{ONE.begin}\nold\n{ONE.end}\nb\n{TWO.begin}\n{TWO.end}\nc\n")
    return folder


def test_all_blocks_are_filled_once(repository: Path) -> None:
    assert fill(repository, (ONE, TWO), check=True) == ["page.md"]
    assert "old" in (repository / "page.md").read_text()
    assert fill(repository, (ONE, TWO), check=False) == ["page.md"]
    expected = f"a\n{ONE.begin}\nfirst of here\n{ONE.end}\nb\n{TWO.begin}\nsecond\n{TWO.end}\nc\n"
    assert (repository / "page.md").read_text() == expected
    assert fill(repository, (ONE, TWO), check=True) == []


def test_a_document_that_cannot_be_filled_is_named_and_left(repository: Path) -> None:
    before = (repository / "page.md").read_text()
    missing = Block("page.md", "three", lambda repository: "third")
    with pytest.raises(JukeboxError, match=r"page\.md.*three: begin.*once each"):
        fill(repository, (ONE, missing), check=False)
    assert (repository / "page.md").read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        ONE.begin,
        ONE.end,
        f"{ONE.end}{ONE.begin}",
        f"{ONE.begin}{ONE.begin}{ONE.end}",
        f"{ONE.begin}{ONE.end}{ONE.end}",
    ],
)
def test_a_document_without_a_place_for_the_block_is_refused(text: str) -> None:
    with pytest.raises(JukeboxError, match="once each"):
        ONE.put_into(text, "block")


def test_what_a_file_says_stays_text() -> None:
    assert escaped("[a](b) *c* <d>") == r"\[a\](b) \*c\* \<d\>"
