"""A page of samples of a model trained on `data synthesize`, with sounds and spectrograms.

Songs are synthesized with a seed not used in training. The model samples a few seconds, starting at the first verse,
with the labels, lyrics and length of two songs of each artist; part of another song is reconstructed by the VQ-VAE.
Nothing is selected by ear, and the same request gives the same files with the same versions of all packages.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.data.audio_files import Audio
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.composition import compose, compose_outline
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.outline import outline
from jukebox_deploy.data.synthesis.performance import perform
from jukebox_deploy.data.synthesis.score import Arrangement, SectionKind, Song
from jukebox_deploy.engine import Engine
from jukebox_deploy.files import atomic_directory
from jukebox_deploy.jobs.evaluation.reconstruction import reconstructed
from jukebox_deploy.jobs.sample_job import OpenedModel
from jukebox_deploy.jobs.samples.ogg_files import write_ogg
from jukebox_deploy.jobs.samples.text import PAGE_FILE, Reconstruction, Sample, SamplesPage
from jukebox_deploy.jobs.sampling_advice import bundle_advice
from jukebox_deploy.jobs.spectrogram import PictureStyle, write_spectrogram
from jukebox_deploy.runtime.events import Event, SongDecoded
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.song import LevelSettings, SongRequest
from jukebox_deploy.training.metrics import error_energy

_QUALITY = 0.7
_STYLE = PictureStyle(fft_length=512, panel_inches=(6.0, 2.2), dpi=90, colours=64)


@dataclass(frozen=True)
class PageRequest:
    """What to make."""

    place: Path  # the folder in which the page will lie, for its links
    checkpoint: CheckpointBundle  # may have its own defaults for sampling
    seed: int = 1  # of the samples
    corpus_seed: int = 52  # of the synthesized songs; not the one used in training
    corpus_grid: float = 0.0  # seconds; see `outline`
    corpus_arrangement: Arrangement = Arrangement.FULL
    seconds: float = 6.0  # of each sound


def write_samples_page(
    request: PageRequest, out: Path, model: OpenedModel, listen: Callable[[Event], None] = lambda event: None
) -> SamplesPage:
    """Sample songs and write the folder `out` atomically.

    Raises `JukeboxError` if `out` is taken, `LabelError` or `SamplingError` for a model that cannot sample
    such songs.
    """
    vqvae = request.checkpoint.config.vqvae
    settings = bundle_advice(request.checkpoint).all_settings(vqvae.levels)
    songs = songs_to_ask_for(request.corpus_seed, request.corpus_grid, request.corpus_arrangement)
    with atomic_directory(out) as folder:
        samples = []
        sounds = _sampled(model, [_request(request, settings, *item) for item in enumerate(songs)], listen)
        for song, audio in zip(songs, sounds, strict=True):
            sample = Sample(song.artist, song.genre, song.seconds, voice_begins(song))
            _write(folder, sample.stem, {f"{song.artist}, {song.genre}": audio}, vqvae.sample_rate)
            samples.append(sample)
        page = SamplesPage(
            model=request.checkpoint.config.name,
            fingerprint=request.checkpoint.fingerprint(),
            card=_card(request),
            seed=request.seed,
            corpus_seed=request.corpus_seed,
            corpus_grid=request.corpus_grid,
            corpus_arrangement=request.corpus_arrangement,
            seconds=request.seconds,
            levels=settings,
            samples=tuple(samples),
            reconstruction=_reconstruct(folder, request, model.engine),
        )
        (folder / PAGE_FILE).write_text(page.text(), encoding="utf-8")
    return page


def songs_to_ask_for(seed: int, grid: float = 0.0, arrangement: Arrangement = Arrangement.FULL) -> tuple[Song, ...]:
    """Return two songs of each artist, with each genre twice, by two artists."""
    genres = tuple(GENRES)
    half = len(genres) // 2
    pairs = [(a, genres[(place + n * half) % len(genres)]) for place, a in enumerate(ARTISTS) for n in (0, 1)]
    plans = (outline(seed, number, grid, arrangement) for number in range(len(ARTISTS) * len(GENRES)))
    by_labels = {(plan.artist.name, plan.genre.name): plan for plan in plans}
    return tuple(compose_outline(by_labels[pair]) for pair in pairs)


def voice_begins(song: Song) -> float:
    """Return the start of the first verse or refrain in seconds."""
    return _begin_of(song, SectionKind.VERSE, SectionKind.REFRAIN)


def _begin_of(song: Song, *kinds: SectionKind) -> float:
    begins = zip(song.section_beats, song.sections, strict=True)
    return song.time_of(next(beat for beat, section in begins if section.kind in kinds))


def _request(page: PageRequest, levels: tuple[LevelSettings, ...], number: int, song: Song) -> SongRequest:
    return SongRequest(
        seconds=page.seconds,
        artist=song.artist,
        genre=song.genre,
        lyrics=song.lyrics,
        total_seconds=song.seconds,
        offset_seconds=voice_begins(song),
        seed=page.seed,
        song=number,
        levels=levels,
    )


def _sampled(model: OpenedModel, requests: list[SongRequest], listen: Callable[[Event], None]) -> Iterator[Audio]:
    """Sample the songs and return their sound."""
    import soundfile

    with tempfile.TemporaryDirectory() as work:
        jobs = [SongJob(request, Path(work) / str(number)) for number, request in enumerate(requests)]
        files: dict[int, Path] = {}
        for event in model.sampler(SamplingOptions(slots=len(jobs))).sample(jobs):
            if isinstance(event, SongDecoded):
                files[event.song] = event.wav.path
            listen(event)
        for number in range(len(jobs)):
            yield soundfile.read(files[number], dtype="float32")[0]


def _reconstruct(folder: Path, request: PageRequest, engine: Engine) -> Reconstruction:
    """Reconstruct part of a song, from its first refrain on, at each level."""
    import torch

    vqvae = request.checkpoint.config.vqvae
    song = compose(request.corpus_seed, 0, request.corpus_grid, request.corpus_arrangement)
    hop = vqvae.hop_lengths[-1]
    begin = round(_begin_of(song, SectionKind.REFRAIN) * vqvae.sample_rate)
    length = round(request.seconds * vqvae.sample_rate) // hop * hop
    original: Audio = perform(song, vqvae.sample_rate)[begin : begin + length]
    kept = [reconstructed(engine, level, original) for level in range(vqvae.levels)]
    target = torch.from_numpy(original)
    snr = tuple(error_energy(target, torch.from_numpy(audio)).decibels for audio in kept)
    report = Reconstruction(song.artist, song.genre, begin / vqvae.sample_rate, snr)
    sounds = dict(zip(report.titles, (original, *kept), strict=True))
    for stem, audio in zip(report.stems, sounds.values(), strict=True):
        write_ogg(folder / f"{stem}.ogg", audio, vqvae.sample_rate, _QUALITY)
    write_spectrogram(folder / report.picture, sounds, vqvae.sample_rate, _STYLE)
    return report


def _write(folder: Path, stem: str, sounds: dict[str, np.ndarray], sample_rate: int) -> None:
    (audio,) = sounds.values()
    write_ogg(folder / f"{stem}.ogg", audio, sample_rate, _QUALITY)
    write_spectrogram(folder / f"{stem}.png", sounds, sample_rate, _STYLE)


def _card(request: PageRequest) -> str | None:
    """Return the relative path from the page to the model card, if there is one."""
    card = request.checkpoint.folder / "README.md"
    return Path(os.path.relpath(card, request.place)).as_posix() if card.is_file() else None
