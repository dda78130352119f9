"""The page of samples as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.runtime.song import LevelSettings

PAGE_FILE = "README.md"
_MARK = "<!-- made by jukebox_deploy.cli.samples_page; do not edit -->"


def is_samples_page(folder: Path) -> bool:
    """Whether a folder holds such a page, and may be made anew."""
    page = folder / PAGE_FILE
    return page.is_file() and _MARK in page.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Sample:
    """What the model was asked for."""

    artist: str
    genre: str
    total_seconds: float  # how long it was told that the song is
    offset_seconds: float  # where in it the sample begins

    @property
    def stem(self) -> str:
        """The name of its files without their ends."""
        return f"{self.artist}-{self.genre}".replace(" ", "-")


@dataclass(frozen=True)
class Reconstruction:
    """A song that went through the VQ-VAE."""

    artist: str
    genre: str
    offset_seconds: float  # where in the song the stretch begins
    snr: tuple[float, ...]  # signal over error in decibels, level 0 first

    picture = "reconstruction.png"

    @property
    def titles(self) -> tuple[str, ...]:
        """The original, then each level."""
        return ("original", *(f"level {level}" for level in range(len(self.snr))))

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the sound files without their ends, in the same order."""
        return tuple(f"reconstruction-{title.replace(' ', '-')}" for title in self.titles)


@dataclass(frozen=True)
class SamplesPage:
    """What is on the page."""

    model: str
    fingerprint: str  # of the checkpoint bundle
    card: str | None  # way from the page to the model's card
    seed: int
    corpus_seed: int
    corpus_grid: float
    corpus_arrangement: Arrangement
    seconds: float
    levels: tuple[LevelSettings, ...]  # level 0 first
    samples: tuple[Sample, ...]
    reconstruction: Reconstruction

    def text(self) -> str:
        """The page."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        name = f"`{self.model}`" if self.card is None else f"[`{self.model}`]({self.card})"
        yield from ("# Samples", "", _MARK, "")
        yield f"What {name} (checkpoint {self.fingerprint[:12]}) sings, {self.seconds:g} s each. Nothing was chosen by"
        yield f"ear: these are the songs 0 to {len(self.samples) - 1} of seed {self.seed}. Artist, genre, lyrics and"
        yield f"length are those of songs that the composer makes of seed {self.corpus_seed}; the model was trained on"
        yield "songs of another seed. Each sample begins where the voice of that song does."
        yield from ("", "| artist | genre | begins at | sound | spectrogram |", "| --- | --- | ---: | --- | --- |")
        for sample in self.samples:
            begins = f"{sample.offset_seconds:.1f} of {sample.total_seconds:.1f} s"
            files = f"[{sample.stem}.ogg]({sample.stem}.ogg) | {_image(f'{sample.stem}.png', sample.stem)}"
            yield f"| {sample.artist} | {sample.genre} | {begins} | {files} |"
        yield from ("", "## What the VQ-VAE keeps", "")
        yield from self._reconstruction_lines()
        yield from ("", "## How it was made", "")
        yield from self._settings_lines()
        yield from ("", "The command, in a clone with `pip install --editable '.[cpu,train]'`:", "")
        seeds = f"--seed {self.seed} --corpus-seed {self.corpus_seed} --corpus-grid {self.corpus_grid:g}"
        rest = f"--corpus-arrangement {self.corpus_arrangement} --seconds {self.seconds:g} --force"
        yield from ("```sh", f"python -m jukebox_deploy.cli.samples_page {seeds} {rest}", "```")

    def _settings_lines(self) -> Iterator[str]:
        yield from ("| level | temperature | top-k | top-p |", "| ---: | ---: | ---: | ---: |")
        for level, settings in enumerate(self.levels):
            filters = " | ".join(str(value or "") for value in (settings.top_k, settings.top_p))
            yield f"| {level} | {settings.temperature:g} | {filters} |"
        yield from ("", "These are the settings of `sampling.json` beside the model.")

    def _reconstruction_lines(self) -> Iterator[str]:
        made = self.reconstruction
        yield f"Song 0 of seed {self.corpus_seed} ({made.artist}, {made.genre}) from {made.offset_seconds:.1f} s on,"
        yield from ("encoded and decoded again by each level alone.", "")
        yield from ("| | sound | signal over error |", "| --- | --- | ---: |")
        numbers = ("", *(f"{snr:.1f} dB" for snr in made.snr))
        for title, stem, number in zip(made.titles, made.stems, numbers, strict=True):
            yield f"| {title} | [{stem}.ogg]({stem}.ogg) | {number} |"
        yield from ("", _image(made.picture, "The original and the three levels as spectrograms"))


def _image(file: str, words: str) -> str:
    return f'<img src="{file}" width="360" alt="{words}">'
