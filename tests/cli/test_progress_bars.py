"""Bars are for terminals; elsewhere nothing is written."""

from __future__ import annotations

import io
import sys

import pytest

from jukebox_deploy.cli.progress_bars import Rate, progress_bars
from tests.benchmarks.still_clock import StillClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, silent: bool) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bars(silent) as show:
        show("clips of the corpus", 1, 4)
        show("clips of the corpus", 4, 4)
        show("songs encoded", 1, 2)
    return stream.getvalue()


def test_a_bar_for_each_thing_that_is_done(monkeypatch):
    text = drawn(monkeypatch, Terminal(), silent=False)
    for part in ("clips of the corpus", "100%", "songs encoded", "50%"):
        assert part in text


@pytest.mark.parametrize(("stream", "silent"), [(Terminal, True), (io.StringIO, False)])
def test_nothing_where_nobody_looks(monkeypatch, stream, silent):
    assert drawn(monkeypatch, stream(), silent=silent) == ""


def test_a_rate_counts_from_the_first_that_is_heard():
    clock = StillClock()
    rate = Rate(10, clock)
    assert rate.after(10) == ""
    clock.now += 4
    assert rate.after(60) == "12.5/s"
