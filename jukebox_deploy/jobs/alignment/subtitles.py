"""Lines of lyrics as timed files for music and video players."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from jukebox_deploy.jobs.alignment.song_alignment import SungLine


def lrc(lines: Iterable[SungLine]) -> str:
    """Return LRC, for music players: the time at which each line begins."""
    return "".join(f"[{_lrc_time(line.start)}]{line.text}\n" for line in lines)


def web_vtt(lines: Iterable[SungLine]) -> str:
    """Return WebVTT, for browsers and video players: when each line begins and ends, and each word begins."""
    cues = (f"{_vtt_time(line.start)} --> {_vtt_time(line.end)}\n{' '.join(_cue_words(line))}\n" for line in lines)
    return "\n".join(["WEBVTT\n", *cues])


def _cue_words(line: SungLine) -> Iterator[str]:
    """Return words with their times, which must increase within the cue."""
    before = line.start
    for text, start in line.words:
        escaped = html.escape(text, quote=False)
        if start is not None and before < start < line.end:
            before = start
            yield f"<{_vtt_time(start)}>{escaped}"
        else:
            yield escaped


def _lrc_time(seconds: float) -> str:
    """Format seconds as `01:02.50`; minutes are not limited."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000:02}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"


def _vtt_time(seconds: float) -> str:
    """Format seconds as `00:01:02.500`."""
    milliseconds = round(seconds * 1000)
    minutes = milliseconds // 60_000
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000 % 60:02}.{milliseconds % 1000:03}"
