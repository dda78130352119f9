from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jukebox_deploy.runtime.audio import WavReport
from jukebox_deploy.runtime.events import DecodeProgress, Event, LevelProgress, SongDecoded, SongWarning
from jukebox_deploy.runtime.progress import LevelRate, ProgressReport
from tests.runtime.song_cases import VQVAE


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(events: Sequence[tuple[float, Event]], terminal: bool) -> str:
    clock, stream = Clock(), io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120)
    with ProgressReport(VQVAE, console, clock) as report:
        for clock.now, event in events:
            report.show(event)
    return stream.getvalue()


def test_rates_count_all_songs_but_not_what_was_found() -> None:
    rate = LevelRate(codes_per_second=50.0, begun=100.0)
    rate.note(LevelProgress(2, 0, 30, 30, 80), 100.0)
    rate.note(LevelProgress(2, 1, 0, 0, 40), 100.0)
    assert (rate.tokens_per_second, rate.seconds_left, str(rate)) == (0.0, None, "starting")
    rate.note(LevelProgress(2, 0, 30, 45, 80), 104.0)
    rate.note(LevelProgress(2, 1, 0, 5, 40), 104.0)
    assert (rate.tokens_per_second, rate.times_real_time, rate.seconds_left) == (5.0, 0.1, 14.0)
    assert str(rate) == "5.0 tokens/s, 0.1 x real time, 0:00:14 left"


def test_plain_lines_are_few_and_the_last_one_is_there() -> None:
    steps = [(float(second), LevelProgress(2, 0, 0, 10 * second, 600)) for second in range(61)]
    lines = shown(steps, terminal=False).splitlines()
    assert lines[0] == "level 2: 100 of 600 codes, 10.0 tokens/s, 0.2 x real time, 0:00:50 left"
    assert lines[-1] == "level 2: 600 of 600 codes, 10.0 tokens/s, 0.2 x real time, 0:00:00 left"
    assert len(lines) == 6


def test_a_terminal_gets_a_bar() -> None:
    output = shown([(0.0, LevelProgress(1, 0, 0, 0, 10)), (1.0, LevelProgress(1, 0, 0, 5, 10))], terminal=True)
    assert "\x1b[" in output
    assert "level 1" in output
    assert "5.0 tokens/s" in output


def test_warnings_and_files_are_lines() -> None:
    wav = WavReport(Path("song/level_0.wav"), 1600, 800, peak=2.0, scale=0.5)
    events: list[tuple[float, Event]] = [
        (0.0, SongWarning(0, "no [such] artist")),
        (1.0, DecodeProgress(0, 1, 7, 7)),
        (2.0, SongDecoded(0, 1, wav)),
    ]
    assert shown(events, terminal=False).splitlines() == [
        "song 1: warning: no [such] artist",
        "song 2, decoding level 0: 7 of 7 codes",
        "song 2: 2.00 s in song/level_0.wav, scaled by 0.500 because its peak was 2.000",
    ]
