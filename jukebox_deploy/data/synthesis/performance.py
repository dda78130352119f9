"""Performance of a score: every note is played by the artist's instruments and mixed to one channel."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.synthesis.artists import ARTISTS, Artist
from jukebox_deploy.data.synthesis.scales import frequency
from jukebox_deploy.data.synthesis.score import Arrangement, Drum, Hit, Note, Part, Song, Syllable
from jukebox_deploy.data.synthesis.waveforms import Samples, faded

PEAK = 10 ** (-3 / 20)
"""Loudest sample of a song: 3 dB below full scale."""

_ECHO_BEATS = 0.75
_LOWEST_HERTZ = 25.0  # inaudible frequencies below this are filtered out
_FADE_OUT = 0.3  # seconds
_VOICE, _DRUMS = 10, 20  # first number of the places of their random choices; the parts use numbers below these


def perform(song: Song, rate: int) -> npt.NDArray[np.float32]:
    """Render a song as mono `[samples]`, with a peak of 3 dB below full scale and without DC offset."""
    from scipy.signal import butter, sosfilt

    mixed = _Performance(song, rate).mixed()
    mixed = sosfilt(butter(2, _LOWEST_HERTZ, "highpass", fs=rate, output="sos"), mixed)
    mixed = faded(mixed, 0.002, _FADE_OUT, rate)
    peak = np.abs(mixed).max(initial=0.0)
    return (mixed * (PEAK / peak if peak > 0 else 1.0)).astype(np.float32)


class _Performance:
    """Renderer of one song. Repeated sounds are made only once; an artist sounds the same in all songs."""

    def __init__(self, song: Song, rate: int) -> None:
        self._song = song
        self._rate = rate
        self._artist: Artist = ARTISTS[song.artist]
        self._made: dict[Hashable, Samples] = {}
        self._track = np.zeros(round(song.seconds * rate))

    def mixed(self) -> Samples:
        """Mix all parts `[samples]`."""
        for begin, section in zip(self._song.section_beats, self._song.sections, strict=True):
            for note in section.notes:
                self._add(begin + note.start, self._note(note), self._artist.player(note.part).gain * note.loudness)
            for syllable in section.syllables:
                self._add(begin + syllable.start, self._syllable(syllable), self._artist.voice_gain)
        if self._artist.echo and self._song.arrangement is Arrangement.FULL:
            delay = round(self._song.time_of(_ECHO_BEATS) * self._rate)
            self._track[delay:] += self._artist.echo * self._track[:-delay]
        for begin, section in zip(self._song.section_beats, self._song.sections, strict=True):
            for hit in section.hits:
                self._add(begin + hit.start, self._hit(hit), self._artist.drum_gain * hit.loudness)
        return self._track

    def _add(self, beat: float, samples: Samples, gain: float) -> None:
        start = round(self._song.time_of(beat) * self._rate)
        samples = samples[: len(self._track) - start]
        self._track[start : start + len(samples)] += gain * samples

    def _note(self, note: Note) -> Samples:
        seconds = round(note.length * self._song.beat_seconds, 4)
        place = list(Part).index(note.part)

        def make() -> Samples:
            instrument = self._artist.player(note.part).instrument
            return instrument.tone(frequency(note.pitch), seconds, self._rate, self._dice(place, note.pitch))

        return self._once((note.part, note.pitch, seconds), make)

    def _syllable(self, syllable: Syllable) -> Samples:
        seconds = round(syllable.length * self._song.beat_seconds, 4)

        def make() -> Samples:
            dice = self._dice(_VOICE, syllable.pitch)
            return self._artist.singer.sing(syllable.sounds, frequency(syllable.pitch), seconds, self._rate, dice)

        return self._once((syllable.sounds, syllable.pitch, seconds), make)

    def _hit(self, hit: Hit) -> Samples:
        dice = self._dice(_DRUMS, list(Drum).index(hit.drum))
        return self._once(hit.drum, lambda: self._artist.drums.sound(hit.drum, self._rate, dice))

    def _once(self, key: Hashable, make: Callable[[], Samples]) -> Samples:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _dice(self, *place: int) -> Dice:
        return Dice(0, Stream.SOUND, list(ARTISTS).index(self._artist.name), *place)
