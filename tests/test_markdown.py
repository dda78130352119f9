"""Tables in Markdown."""

from __future__ import annotations

from jukebox_deploy.markdown import table


def test_a_table_has_its_numbers_on_the_right() -> None:
    assert table(("what", ">how many"), [("songs", "2")]) == "| what | how many |\n| --- | ---: |\n| songs | 2 |"
