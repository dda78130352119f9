"""Which stretches of which files are listened to."""

from __future__ import annotations

import numpy as np
import pytest

from jukebox_deploy.data.catalogue import read_catalogue
from jukebox_deploy.errors import AudioError, DataError, SamplingError
from jukebox_deploy.jobs.samples.song_clips import ClipFormat, corpus_clips, sampled_by, sampled_clips, sampled_levels
from jukebox_deploy.runtime.store import Fingerprint
from tests.data.short_songs import RATE
from tests.data.song_folders import noise, ramp, write_sound, write_table
from tests.jobs.sampled_songs import write_song

SECOND = noise(1.0, rate=RATE)


def test_levels_are_those_with_sound(tmp_path):
    write_song(tmp_path / "song_0", {0: SECOND, 2: SECOND})
    write_song(tmp_path / "deeper" / "song_1", {1: SECOND})
    assert sampled_levels(tmp_path) == (0, 1, 2)
    assert [clip.path.parent.name for clip in sampled_clips(tmp_path, 1)[1]] == ["song_1"]
    assert len(sampled_clips(tmp_path / "song_0", 2)[1]) == 1  # a song's own folder will do


def test_clips_are_as_long_as_the_shortest_song_and_know_what_was_asked_for(tmp_path):
    write_song(tmp_path / "song_0", {0: noise(2.0, rate=RATE)}, "Organ Valley", " FOLK")
    write_song(tmp_path / "song_1", {0: SECOND})
    form, clips = sampled_clips(tmp_path, 0)
    assert form == ClipFormat(RATE, len(SECOND))
    assert [(clip.artist, clip.genre) for clip in clips] == [("organ valley", "folk"), ("", "")]
    np.testing.assert_array_equal(clips[0].read(form), noise(2.0, rate=RATE)[: len(SECOND)])


def test_what_was_given_is_not_judged(tmp_path):
    write_song(tmp_path, {0: ramp(2 * RATE)}, given=0.25)
    form, (clip,) = sampled_clips(tmp_path, 0)
    assert (clip.start, form.length) == (RATE // 2, 2 * RATE - RATE // 2)


def test_songs_tell_what_they_were_sampled_with(tmp_path):
    for number in range(2):
        write_song(tmp_path / str(number), {0: np.zeros(RATE, np.float32)})
    assert sampled_by(tmp_path) == (Fingerprint("engine", "checkpoint"),)


@pytest.mark.parametrize("sounds", [{}, {1: SECOND}])
def test_nothing_to_judge(tmp_path, sounds):
    if sounds:
        write_song(tmp_path, sounds)
    with pytest.raises(SamplingError, match="nothing to judge at level 0"):
        sampled_clips(tmp_path, 0)


def test_no_songs_and_no_sound(tmp_path):
    with pytest.raises(SamplingError, match="no songs here, so there is nothing to judge"):
        sampled_levels(tmp_path)
    write_song(tmp_path, {0: SECOND})
    (tmp_path / "level_0.wav").unlink()
    with pytest.raises(SamplingError, match="1 songs, and none has a sound file here"):
        sampled_levels(tmp_path)


def test_songs_of_several_rates_are_refused(tmp_path):
    write_song(tmp_path / "a", {0: SECOND})
    write_song(tmp_path / "b", {0: SECOND}, rate=8000)
    with pytest.raises(AudioError, match=r"different sample rates, 8000 and 16000 Hz"):
        sampled_clips(tmp_path, 0)


def test_a_song_too_short_to_be_judged_is_named(tmp_path):
    write_song(tmp_path / "a", {0: SECOND})
    write_song(tmp_path / "b", {0: SECOND}, given=0.75)
    with pytest.raises(AudioError, match=r"b/level_0.wav: has 0\.25 s of its own, and 0\.512 s are needed"):
        sampled_clips(tmp_path, 0)


def test_clips_of_the_corpus_are_spread_and_do_not_overlap(tmp_path):
    for name, seconds in (("a", 5.0), ("b", 1.0), ("short", 0.5)):
        write_sound(tmp_path / f"{name}.wav", ramp(round(seconds * RATE)), RATE)
    write_table(tmp_path, [{"file": "a.wav", "artist": "Ann", "genres": ["Folk", "dance"]}, {"file": "b.wav"}])
    form = ClipFormat(RATE // 2, RATE // 2)  # a second at half the rate
    clips = corpus_clips(read_catalogue(tmp_path), form, 6)
    places = [(clip.path.stem, clip.start, clip.artist, clip.genre) for clip in clips]
    second = RATE // 2
    assert places == [*(("a", start * second, "ann", "folk") for start in (0, 2, 4)), ("b", 0, "", "")]
    assert len({clip.song for clip in clips}) == 2
    assert clips[1].read(form).shape == (form.length,)


def test_few_clips_come_from_few_songs(tmp_path):
    for number in range(9):
        write_sound(tmp_path / f"{number}.wav", SECOND, RATE)
    clips = corpus_clips(read_catalogue(tmp_path), ClipFormat(RATE, 10_000), 3)
    assert [clip.path.stem for clip in clips] == ["0", "4", "8"]


def test_a_corpus_of_shorter_songs_is_refused(tmp_path):
    write_sound(tmp_path / "a.wav", SECOND, RATE)
    write_sound(tmp_path / "b.wav", noise(3, rate=RATE), RATE)
    with pytest.raises(DataError, match=r"1 of 2 songs last 2\.00 s, the length of the samples"):
        corpus_clips(read_catalogue(tmp_path), ClipFormat(RATE, 2 * RATE), 10)


def test_clips_begin_where_codes_do(tmp_path):
    write_sound(tmp_path / "a.wav", ramp(5 * RATE), RATE)
    write_sound(tmp_path / "b.wav", ramp(5 * RATE + 77), RATE)
    form, songs = ClipFormat(RATE, RATE), read_catalogue(tmp_path)
    clips, free = corpus_clips(songs, form, 6, hop=256), corpus_clips(songs, form, 6)
    assert [clip.start for clip in clips] == [clip.start // 256 * 256 for clip in free]
    assert any(clip.start % 256 for clip in free)
