"""One display of progress: bars on a terminal, seldom lines elsewhere, and never a word on standard output."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from jukebox_deploy.cli.progress import Pace, Progress, ProgressDisplay, progress_bars, progress_line
from tests.benchmarks.still_clock import StillClock


def shown(*moments: tuple[float, Progress], terminal: bool = False) -> str:
    """What is written when each progress is told at its time."""
    clock, stream = StillClock(), io.StringIO()
    with ProgressDisplay(Console(file=stream, force_terminal=terminal, width=120), clock) as display:
        for clock.now, progress in moments:
            display.show(progress)
    return stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def make_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From now on standard error is a terminal; standard output is none."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_line_is_written_as_it_is(capsys):
    with ProgressDisplay() as display:
        display.say("song: 6.00 s in [new]/:dog:/level_0.wav")
    assert capsys.readouterr().err == "song: 6.00 s in [new]/:dog:/level_0.wav\n"


class TestPace:
    @pytest.mark.parametrize(
        ("progress", "words"),
        [
            (Progress("", 10, 110), ()),
            (Progress("", 60, 110), ("12.5/s", "0:00:04 left")),
            (Progress("", 110, 110), ("25/s", "in 0:00:04")),
            (Progress("", 60, 110, found=20), ("10/s", "0:00:05 left")),
            (Progress("", 60, 110, found=60), ()),
            (Progress("", 60), ()),
            (Progress("", 60, 60_010, speed=lambda rate: f"{rate} codes"), ("12.5 codes", "1:19:56 left")),
            (Progress("", 40_010, 40_010), ("10,000/s", "in 0:00:04")),
        ],
    )
    def test_counts_from_the_first_that_is_heard(self, progress, words):
        assert Pace(begun=100.0, first=10).describe(progress, now=104.0) == words

    def test_says_nothing_before_time_has_passed(self):
        assert Pace(begun=100.0, first=10).describe(Progress("", 60, 110), now=100.0) == ()


class TestLines:
    def test_are_few_and_the_last_one_is_there(self):
        lines = shown(*((float(s), Progress("songs", s, 25, "songs", note="of all")) for s in range(26)))
        assert lines.splitlines() == [
            "songs: 10 of 25 songs, of all, 1/s, 0:00:15 left",
            "songs: 20 of 25 songs, of all, 1/s, 0:00:05 left",
            "songs: 25 of 25 songs, of all, 1/s, in 0:00:25",
        ]

    def test_what_begins_on_the_same_bar_is_told_at_once(self):
        steps = [("training", 1), ("training", 2), ("saving", 2), ("training", 3)]
        lines = shown(*((0.0, Progress(what, step, 9, bar="run")) for what, step in steps))
        assert lines.splitlines() == ["saving: 2 of 9", "training: 3 of 9"]

    def test_what_has_no_end_is_told_now_and_then(self):
        lines = shown(*((float(s), Progress(f"round {s}", bar="now")) for s in range(25)))
        assert lines.splitlines() == ["round 10", "round 20"]

    def test_what_begins_anew_has_a_pace_of_its_own(self):
        lines = shown((0, Progress("songs", 0, 4)), (9, Progress("songs", 4, 4)), (9, Progress("songs", 0, 6)),
                      (12, Progress("songs", 6, 6)))  # fmt: skip
        assert lines.splitlines() == ["songs: 4 of 4, 0.444/s, in 0:00:09", "songs: 6 of 6, 2/s, in 0:00:03"]

    def test_brackets_are_no_markup(self):
        assert shown((0.0, Progress("[bold]", 1, 1))) == "[bold]: 1 of 1\n"

    def test_a_terminal_that_cannot_move_its_cursor_gets_lines(self, monkeypatch):
        monkeypatch.setenv("TERM", "dumb")
        assert shown((0.0, Progress("songs", 1, 1)), terminal=True) == "songs: 1 of 1\n"


class TestBars:
    @pytest.fixture(autouse=True)
    def terminal_with_a_cursor(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")

    def test_one_for_each_thing(self):
        text = shown((0, Progress("clips", 0, 4)), (2, Progress("clips", 4, 4)), (2, Progress("songs", 1, 2)),
                     terminal=True)  # fmt: skip
        for part in ("\x1b[", "clips: 2/s, in 0:00:02", "100%", "songs", "50%"):
            assert part in text

    def test_what_takes_turns_shares_one(self):
        text = shown((0, Progress("training", 1, 4, bar="run")), (0, Progress("saving", 1, 4, bar="run")),
                     terminal=True)  # fmt: skip
        assert text.count("training") == 1
        assert "saving" in text.splitlines()[2]
        assert "training" not in text.splitlines()[2]

    def test_what_has_no_end_leaves_nothing(self):
        assert "reading" not in shown((0.0, Progress("reading")), terminal=True).splitlines()[-1]


class TestForJobs:
    def test_counts_go_to_bars_on_standard_error(self, monkeypatch, capsys):
        terminal = make_terminal(monkeypatch)
        with progress_bars() as show:
            show("clips of the corpus", 1, 4)
            show("clips of the corpus", 4, 4)
        assert "clips of the corpus" in terminal.getvalue()
        assert capsys.readouterr().out == ""

    def test_texts_go_to_a_line_on_standard_error(self, monkeypatch):
        terminal = make_terminal(monkeypatch)
        with progress_line("reading"):
            assert "reading" in terminal.getvalue()

    def test_results_printed_meanwhile_stay_on_standard_output(self, monkeypatch, capsys):
        terminal = make_terminal(monkeypatch)
        with progress_line("reading"):
            print("{}")
        assert capsys.readouterr().out == "{}\n"
        assert "{}" not in terminal.getvalue()

    def test_without_a_terminal_what_is_done_is_a_line(self, capsys):
        with progress_bars() as show:
            show("clips of the corpus", 1, 4)
            show("clips of the corpus", 4, 4)
        with progress_line("reading"):
            pass
        streams = capsys.readouterr()
        assert streams.out == ""
        assert streams.err.startswith("clips of the corpus: 4 of 4")
        assert streams.err.count("\n") == 1
