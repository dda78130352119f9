"""Lines of lyrics as LRC and as WebVTT."""

from __future__ import annotations

from jukebox_deploy.jobs.alignment.song_alignment import SungLine
from jukebox_deploy.jobs.alignment.subtitles import lrc, web_vtt
from jukebox_deploy.jobs.alignment.word_times import Focus


def line(start: float, end: float, *words: tuple[str, float | None]) -> SungLine:
    return SungLine(" ".join(text for text, _ in words), start, end, words, Focus())


LINES = [
    line(0.0, 1.25, ("Slow", 0.0), ("water", 0.4), ("over", None), ("stones", 1.1)),
    line(59.996, 61.5, ("<b>", 59.996), ("&", 60.5)),
    line(3725.5, 3726.0, ("end", 3725.5)),
]


def test_lrc_has_the_time_of_each_line() -> None:
    assert lrc(LINES) == "[00:00.00]Slow water over stones\n[01:00.00]<b> &\n[62:05.50]end\n"


def test_web_vtt_has_the_times_of_lines_and_words() -> None:
    assert web_vtt(LINES).split("\n\n") == [
        "WEBVTT",
        "00:00:00.000 --> 00:00:01.250\nSlow <00:00:00.400>water over <00:00:01.100>stones",
        "00:00:59.996 --> 00:01:01.500\n&lt;b&gt; <00:01:00.500>&amp;",
        "01:02:05.500 --> 01:02:06.000\nend\n",
    ]


def test_times_within_a_cue_rise() -> None:
    """Words that begin together, or with the cue, have no time of their own there."""
    text = web_vtt([line(1.0, 2.0, ("a", 1.0), ("b", 1.0), ("c", 1.5), ("d", 1.5), ("e", 2.0))])
    assert text.endswith("a b <00:00:01.500>c d e\n")


def test_without_lines_files_are_still_sound() -> None:
    assert (lrc([]), web_vtt([])) == ("", "WEBVTT\n")
