from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from jukebox_deploy.cli.progress import ProgressDisplay
from jukebox_deploy.cli.sampling_progress import LevelSum, SamplingProgress
from jukebox_deploy.runtime.audio import WavReport
from jukebox_deploy.runtime.events import DecodeProgress, Event, LevelProgress, SongDecoded, SongWarning
from tests.benchmarks.still_clock import StillClock
from tests.runtime.song_cases import VQVAE


def lines(*moments: tuple[float, Event]) -> list[str]:
    """What is written when each event comes at its time."""
    clock, stream = StillClock(), io.StringIO()
    with ProgressDisplay(Console(file=stream), clock) as display:
        progress = SamplingProgress(VQVAE, display)
        for clock.now, event in moments:
            progress.show(event)
    return stream.getvalue().splitlines()


def test_a_level_is_the_sum_of_its_songs() -> None:
    level = LevelSum(codes_per_second=50.0)
    level.after(LevelProgress(2, 0, 30, 30, 80))
    level.after(LevelProgress(2, 1, 0, 0, 40))
    progress = level.after(LevelProgress(2, 0, 30, 45, 80))
    assert (progress.what, progress.done, progress.total, progress.found) == ("level 2", 45, 120, 30)
    assert progress.speed(5.0) == "5.0 tokens/s, 0.1 x real time"


def test_the_rate_counts_all_songs_but_not_what_was_found() -> None:
    written = lines(
        (100.0, LevelProgress(2, 0, 30, 30, 80)),
        (100.0, LevelProgress(2, 1, 0, 0, 40)),
        (104.0, LevelProgress(2, 0, 30, 45, 80)),
        (110.0, LevelProgress(2, 1, 0, 35, 40)),
    )
    assert written[-1] == "level 2: 80 of 120 codes, 5.0 tokens/s, 0.1 x real time, 0:00:08 left"


def test_levels_have_rates_of_their_own() -> None:
    events = [(0.0, LevelProgress(2, 0, 0, 0, 80)), (4.0, LevelProgress(2, 0, 0, 80, 80))]
    written = lines(*events, (4.0, LevelProgress(1, 0, 0, 0, 160)), (6.0, LevelProgress(1, 0, 0, 160, 160)))
    assert written == [
        "level 2: 80 of 80 codes, 20.0 tokens/s, 0.4 x real time, in 0:00:04",
        "level 1: 160 of 160 codes, 80.0 tokens/s, 0.8 x real time, in 0:00:02",
    ]


@pytest.mark.parametrize(("scale", "more"), [(1.0, ""), (0.5, ", scaled by 0.500 because its peak was 2.000")])
def test_warnings_and_files_are_lines(scale: float, more: str) -> None:
    wav = WavReport(Path("song_1/level_0.wav"), 1600, 800, peak=1.0 / scale, scale=scale)
    written = lines(
        (0.0, SongWarning(0, "no [such] artist")),
        (1.0, DecodeProgress(0, 1, 7, 7)),
        (2.0, SongDecoded(0, 1, wav)),
    )
    assert written == [
        "song 0: warning: no [such] artist",
        "song 1, decoding level 0: 7 of 7 codes",
        f"song 1: 2.00 s in song_1/level_0.wav{more}",
    ]


def test_a_song_alone_has_no_number() -> None:
    stream = io.StringIO()
    with ProgressDisplay(Console(file=stream)) as display:
        SamplingProgress(VQVAE, display, alone=True).show(SongWarning(0, "no such artist"))
    assert stream.getvalue() == "song: warning: no such artist\n"


def test_a_decoder_of_several_chunks_at_once_has_its_true_rate() -> None:
    """The second chunk is done when the first one is taken."""
    written = lines(
        (0.0, DecodeProgress(0, 1, 0, 700)),
        (7.0, DecodeProgress(0, 1, 350, 700)),
        (7.0, DecodeProgress(0, 1, 700, 700)),
    )
    assert written == ["song 1, decoding level 0: 700 of 700 codes, 100/s, in 0:00:07"]
