"""The page of samples as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.markdown import table
from jukebox_deploy.runtime.song import LevelSettings

PAGE_FILE = "README.md"
_MARK = "<!-- made by jukebox_deploy.cli.samples_page; do not edit -->"
_WIDTH = 100  # of lines of text


def is_samples_page(folder: Path) -> bool:
    """Whether a folder contains such a page, and so may be replaced."""
    page = folder / PAGE_FILE
    return page.is_file() and _MARK in page.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Sample:
    """A sample, with the request it was made for."""

    artist: str
    genre: str
    total_seconds: float  # total length that the model was conditioned on
    offset_seconds: float  # where in the song the sample begins

    @property
    def stem(self) -> str:
        """The name of its files without extensions."""
        return f"{self.artist}-{self.genre}".replace(" ", "-")


@dataclass(frozen=True)
class Reconstruction:
    """A song encoded and decoded by the VQ-VAE."""

    artist: str
    genre: str
    offset_seconds: float  # where in the song the reconstructed part begins
    snr: tuple[float, ...]  # signal-to-noise ratio in decibels, level 0 first

    picture = "reconstruction.png"

    @property
    def titles(self) -> tuple[str, ...]:
        """The original, then each level."""
        return ("original", *(f"level {level}" for level in range(len(self.snr))))

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the sound files without extensions, in the same order."""
        return tuple(f"reconstruction-{title.replace(' ', '-')}" for title in self.titles)


@dataclass(frozen=True)
class SamplesPage:
    """The contents of the page."""

    model: str
    fingerprint: str  # of the checkpoint bundle
    card: str | None  # relative path from the page to the model card
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
        yield from (f"Songs of {name} (checkpoint {self.fingerprint[:12]}), {self.seconds:g} s each.", "")
        yield _paragraph(
            f"They were not selected by ear: these are songs 0 to {len(self.samples) - 1} of seed {self.seed}. Artist, "
            f"genre, lyrics and total length are those of songs that `data synthesize` composes with seed "
            f"{self.corpus_seed}; the model was trained on songs of another seed. Each sample begins where the first "
            "verse or refrain of that song does (column *begins at*)."
        )
        yield from ("", table(("artist", "genre", ">begins at", "audio", "spectrogram"), map(_row, self.samples)))
        yield from ("", "## Reconstructions by the VQ-VAE", "")
        yield from self._reconstruction_lines()
        yield from ("", "## How the samples were made", "")
        yield from self._settings_lines()
        yield from ("", "Command, in a clone with `pip install --editable '.[cpu,train]'`:", "")
        seeds = f"--seed {self.seed} --corpus-seed {self.corpus_seed} --corpus-grid {self.corpus_grid:g}"
        rest = f"--corpus-arrangement {self.corpus_arrangement} --seconds {self.seconds:g} --force"
        yield from ("```sh", f"python -m jukebox_deploy.cli.samples_page {seeds} {rest}", "```")

    def _settings_lines(self) -> Iterator[str]:
        rows = (
            (str(level), f"{settings.temperature:g}", str(settings.top_k or ""), str(settings.top_p or ""))
            for level, settings in enumerate(self.levels)
        )
        yield from ("Settings, as in the model's `sampling.json`:", "")
        yield table((">level", ">temperature", ">top-k", ">top-p"), rows)

    def _reconstruction_lines(self) -> Iterator[str]:
        made = self.reconstruction
        yield _paragraph(
            f"Song 0 of seed {self.corpus_seed} ({made.artist}, {made.genre}) from {made.offset_seconds:.1f} s on, "
            "encoded and decoded by each level alone:"
        )
        yield ""
        numbers = ("", *(f"{snr:.1f} dB" for snr in made.snr))
        rows = zip(made.titles, map(_link, made.stems), numbers, strict=True)
        yield table(("", "audio", ">signal over error"), rows)
        yield from ("", _image(made.picture, "Spectrograms of the original and of the reconstruction by each level"))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _row(sample: Sample) -> tuple[str, ...]:
    begins = f"{sample.offset_seconds:.1f} of {sample.total_seconds:.1f} s"
    return sample.artist, sample.genre, begins, _link(sample.stem), _image(f"{sample.stem}.png", sample.stem)


def _link(stem: str) -> str:
    return f"[{stem}.ogg]({stem}.ogg)"


def _image(file: str, words: str) -> str:
    return f'<img src="{file}" width="360" alt="{words}">'
