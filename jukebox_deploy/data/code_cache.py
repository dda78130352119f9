"""Cache on disk of songs as codes of a VQ-VAE, so that each song is encoded only once.

One safetensors file per song contains the codes of all levels. Its name is a hash of the VQ-VAE's fingerprint and the
sound file's name, size and modification time, so a song that has changed is encoded again. The folder may be removed at
any time.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.audio_files import Audio, read_song
from jukebox_deploy.data.catalogue import Catalogue, SkippedFile, SongEntry
from jukebox_deploy.errors import AudioError, DataError
from jukebox_deploy.files import atomic_path, remove_leftovers
from jukebox_deploy.listing import shape_text
from jukebox_deploy.threads import map_in_threads

FORMAT_VERSION = 1
_LARGEST_CODE = np.iinfo(np.uint16).max

SongEncoder = Callable[[Audio, int], npt.NDArray[np.int64]]
"""Encodes audio `[T]` at a level to codes `[T / hop]`."""


@dataclass(frozen=True)
class CodedSong:
    """A song whose codes are on disk."""

    entry: SongEntry
    path: Path  # of the file of codes
    samples: int  # of the whole song, at the VQ-VAE's sample rate
    lengths: tuple[int, ...]  # number of codes by level; all levels end with the last whole top-level code

    def codes(self, level: int, first: int = 0, last: int | None = None) -> npt.NDArray[np.int64]:
        """Read only the codes `first` to `last - 1` of a level, `[last - first]`; raise `DataError` if that fails."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "np") as file:
                codes: npt.NDArray[np.uint16] = file.get_slice(_tensor_name(level))[first:last]
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{self.path}: the codes of {self.entry.name} cannot be read ({error}); start again to re-encode them."
            ) from error
        return codes.astype(np.int64)


@dataclass(frozen=True)
class CodedSongs:
    """The songs of a catalogue that have codes, and those that have none."""

    songs: tuple[CodedSong, ...]
    skipped: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True)
class CodeCache:
    """The codes of one VQ-VAE in a folder, which may also have codes of other VQ-VAEs."""

    folder: Path
    fingerprint: str  # of the VQ-VAE's weights
    hop_lengths: tuple[int, ...]  # samples per code, level 0 first
    sample_rate: int

    def find(self, song: SongEntry, *, verify: bool = False) -> CodedSong | None:
        """Return the song if its codes exist, and with `verify` only if they match their checksum."""
        path = self._path(song)
        return self._open(song, path, verify) if path else None

    def coded_songs(self, catalogue: Catalogue) -> CodedSongs:
        """Return the songs that have been encoded already; the others are listed as skipped."""
        found = [(song, self.find(song)) for song in catalogue.songs]
        missing = tuple(SkippedFile(song.name, "not encoded yet") for song, coded in found if coded is None)
        return CodedSongs(tuple(coded for _, coded in found if coded), missing)

    def store(self, song: SongEntry, samples: int, codes: Sequence[npt.NDArray[np.int64]]) -> CodedSong:
        """Write the codes of all levels atomically; raise `DataError` for codes of a wrong shape or range."""
        from safetensors.numpy import save_file

        path = self._path(song)
        if path is None:
            raise DataError(
                f"{song.path}: the sound file was removed while it was encoded; put it back or start again."
            )
        rows = [self._checked(song, samples, level, row) for level, row in enumerate(codes)]
        metadata = {"samples": str(samples), "crc32": str(_checksum(rows)), "song": song.name}
        with atomic_path(path) as partial:
            save_file({_tensor_name(level): row for level, row in enumerate(rows)}, partial, metadata)
        return CodedSong(song, path, samples, self.lengths(samples))

    def lengths(self, samples: int) -> tuple[int, ...]:
        """Return the number of codes of a song by level, limited to whole top-level codes."""
        top = self.hop_lengths[-1]
        return tuple(samples // top * top // hop for hop in self.hop_lengths)

    def _path(self, song: SongEntry) -> Path | None:
        """Return the path of a song's codes; `None` if the sound file does not exist any more."""
        try:
            status = song.path.stat()
        except OSError:
            return None
        model = (FORMAT_VERSION, self.fingerprint, self.sample_rate, self.hop_lengths)
        identity = json.dumps([*model, song.name, status.st_size, status.st_mtime_ns])
        return self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"

    def _open(self, song: SongEntry, path: Path, verify: bool) -> CodedSong | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                samples = int(metadata["samples"])
                lengths = self.lengths(samples)
                levels = [file.get_slice(_tensor_name(level)) for level in range(len(lengths))]
                whole = [tuple(level.get_shape()) for level in levels] == [(length,) for length in lengths]
                if whole and verify:
                    whole = _checksum([level[:] for level in levels]) == int(metadata["crc32"])
        except (OSError, SafetensorError, KeyError, ValueError):  # missing or damaged, so to be encoded again
            return None
        return CodedSong(song, path, samples, lengths) if whole else None

    def _checked(
        self, song: SongEntry, samples: int, level: int, codes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint16]:
        expected = self.lengths(samples)[level]
        if codes.shape != (expected,):
            raise DataError(
                f"{song.name}: level {level} has codes of shape {shape_text(codes.shape)}, expected [{expected}]."
            )
        if codes.min() < 0 or codes.max() > _LARGEST_CODE:
            raise DataError(f"{song.name}: codes must be 0 to {_LARGEST_CODE}, found {codes.min()} to {codes.max()}.")
        return codes.astype(np.uint16)


def encode_catalogue(
    catalogue: Catalogue,
    cache: CodeCache,
    encode: SongEncoder,
    listen: Callable[[int, int], None] = lambda done, total: None,
) -> CodedSongs:
    """Encode the songs that have no codes yet, one after another, so that an interrupted run can be repeated.

    `listen` is called with the number of finished songs and of all songs. Songs that cannot be read or are shorter than
    a top-level code are listed as skipped. While one song is encoded, the next is read.

    Raises:
        DataError: if `encode` returns a wrong number of codes.
        JukeboxError: if there is no disk space for the codes.
    """
    songs: dict[SongEntry, CodedSong] = {}
    skipped: list[SkippedFile] = []
    remove_leftovers(cache.folder)  # only old ones: other runs may be writing there, too
    for song in catalogue.songs:
        if coded := cache.find(song, verify=True):
            songs[song] = coded
    missing = [song for song in catalogue.songs if song not in songs]
    with closing(map_in_threads(lambda song: _read(song, cache), missing, threads=1, ahead=1)) as sounds:
        for song, sound in zip(missing, sounds, strict=True):
            if isinstance(sound, SkippedFile):
                skipped.append(sound)
            else:
                songs[song] = _encode(song, sound, cache, encode)
            listen(len(songs) + len(skipped), len(catalogue.songs))
    return CodedSongs(tuple(songs[song] for song in catalogue.songs if song in songs), tuple(skipped))


def _encode(song: SongEntry, audio: Audio, cache: CodeCache, encode: SongEncoder) -> CodedSong:
    top = cache.hop_lengths[-1]
    whole = audio[: len(audio) // top * top]
    return cache.store(song, len(audio), [encode(whole, level) for level in range(len(cache.hop_lengths))])


def _read(song: SongEntry, cache: CodeCache) -> Audio | SkippedFile:
    try:
        audio = read_song(song.path, cache.sample_rate)
    except AudioError as error:
        return SkippedFile(song.name, str(error))
    if len(audio) < cache.hop_lengths[-1]:
        return SkippedFile(song.name, f"too short, {song.seconds:.3f} s is less than one top-level code")
    return audio


def _tensor_name(level: int) -> str:
    return f"codes_{level}"


def _checksum(levels: Sequence[npt.NDArray[np.uint16]]) -> int:
    checksum = 0
    for codes in levels:
        checksum = zlib.crc32(codes.tobytes(), checksum)
    return checksum
