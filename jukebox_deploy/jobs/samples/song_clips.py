"""Labelled pieces of sound: from sampled songs, and from the corpus they are compared with.

All clips of a comparison have the same length and sample rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jukebox_deploy.config import LabelRules
from jukebox_deploy.data.audio_files import Audio, read_stretch
from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.data.coverage import spread_indices
from jukebox_deploy.errors import AudioError, DataError, SamplingError
from jukebox_deploy.jobs.samples.sound_features import SHORTEST_SECONDS
from jukebox_deploy.labels.vocabulary import canonical
from jukebox_deploy.listing import words_of
from jukebox_deploy.runtime.store import Fingerprint, find_songs, read_record
from jukebox_deploy.sound_files import open_sound


@dataclass(frozen=True)
class ClipFormat:
    """What all clips of a comparison have in common."""

    rate: int  # samples per second
    length: int  # samples

    @property
    def seconds(self) -> float:
        """Length of a clip."""
        return self.length / self.rate


@dataclass(frozen=True)
class Clip:
    """The start of a clip, in samples at the format's rate, and its labels; empty if unknown."""

    path: Path
    start: int
    artist: str
    genre: str
    song: int  # clips of one song have one number

    def read(self, form: ClipFormat) -> Audio:
        """Read the clip, mono float32 `[length]`. Raises `AudioError` if it cannot be read."""
        return read_stretch(self.path, form.rate, self.start, form.length)


def sampled_levels(folder: Path) -> tuple[int, ...]:
    """Return the levels for which songs in a folder have sound files, in increasing order.

    Raises `SamplingError` if there are no songs, or none of them has a sound file.
    """
    songs = find_songs(folder)
    files = {path.stem.removeprefix("level_") for song in songs for path in song.glob("level_*.wav")}
    if not files:
        what = f"{len(songs)} songs, and none has a sound file" if songs else "no songs"
        raise SamplingError(f"{folder}: {what} here, so there is nothing to judge; `jukebox-deploy sample` makes some.")
    return tuple(sorted(int(level) for level in files if level.isdecimal()))


def sampled_by(folder: Path) -> tuple[Fingerprint, ...]:
    """Return the fingerprints of the engines and checkpoints that the songs in a folder were sampled with."""
    found = {read_record(song).fingerprint for song in find_songs(folder)}
    return tuple(sorted({replace(one, batch=None) for one in found}, key=lambda one: (one.checkpoint, one.engine)))


def sampled_clips(folder: Path, level: int) -> tuple[ClipFormat, tuple[Clip, ...]]:
    """Return the beginnings of all songs in a folder with a sound file of the level, as long as the shortest.

    The prompt or continued song at the beginning is left out. Raises `SamplingError` if there is no
    such file, `AudioError` for files with different sample rates and for one that is too short.
    """
    found = [_whole_clip(song, level, number) for number, song in enumerate(find_songs(folder))]
    clips = [clip for clip in found if clip is not None]
    if not clips:
        raise SamplingError(f"{folder}: no song has a sound file level_{level}.wav; nothing to judge at level {level}.")
    rates = {rate for _, rate, _ in clips}
    if len(rates) > 1:
        found_rates = words_of(map(str, sorted(rates)))
        raise AudioError(f"{folder}: the songs have different sample rates, {found_rates} Hz; judge them apart.")
    (rate,) = rates
    shortest, _, length = min(clips, key=lambda clip: clip[2])
    if length < SHORTEST_SECONDS * rate:
        raise AudioError(
            f"{shortest.path}: has {max(length, 0) / rate:.3g} s of its own, and {SHORTEST_SECONDS} s are needed to "
            "judge it; sample longer songs, or take this one away."
        )
    return ClipFormat(rate, length), tuple(clip for clip, _, _ in clips)


def _whole_clip(folder: Path, level: int, number: int) -> tuple[Clip, int, int] | None:
    """Return the newly sampled part of a song, its sample rate and length; `None` without a file of the level."""
    path = folder / f"level_{level}.wav"
    if not path.is_file():
        return None
    record = read_record(folder)
    with open_sound(path) as file:
        rate, samples = file.samplerate, file.frames
    start = samples * record.lengths.given[level] // record.lengths.totals[level]
    request = record.request
    return Clip(path, start, _name(request.artist), _name(request.genre), number), rate, samples - start


def corpus_clips(catalogue: Catalogue, form: ClipFormat, count: int, hop: int = 1) -> tuple[Clip, ...]:
    """Return about `count` clips that do not overlap, spread evenly over the songs and within each.

    They begin at multiples of `hop` samples, as the codes of a VQ-VAE do: for music on a grid, an offset in between
    would give different codes for the same sounds.

    Raises `DataError` if fewer than two songs are long enough.
    """
    songs = [(song, song.samples_at(form.rate)) for song in catalogue.songs]
    fitting = [(song, samples) for song, samples in songs if samples >= form.length]
    if len(fitting) < 2:
        raise DataError(
            f"{catalogue.folder}: {len(fitting)} of {len(songs)} songs last {form.seconds:.2f} s, the length of the "
            "samples; give a corpus with two or more."
        )
    clips = []
    for number in spread_indices(len(fitting), count):
        song, samples = fitting[number]
        genre = song.genres[0] if song.genres else ""
        pieces = min(-(-count // len(fitting)), samples // form.length)
        for start in np.linspace(0, samples - form.length, pieces).astype(int).tolist():
            clips.append(Clip(song.path, start // hop * hop, _name(song.artist), _name(genre), number))
    return tuple(clips)


def _name(name: str) -> str:
    return canonical(name, LabelRules.NAMES).strip()
