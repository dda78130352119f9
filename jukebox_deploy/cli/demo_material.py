"""The songs that the demo samples, and names and a prompt for a model without its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jukebox_deploy.cli.demo_chord import write_chord
from jukebox_deploy.cli.level_values import settings_options
from jukebox_deploy.jobs.sampling_advice import read_advice
from jukebox_deploy.jobs.shipped_model import PROMPT_FILE
from jukebox_deploy.runtime.sampler import SongJob
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest

_SEED = 1
_SONG_SECONDS = 60.0  # about the length of songs of `data synthesize`


@dataclass(frozen=True)
class DemoSong:
    """What distinguishes a song of the demo from the others."""

    name: str  # of its folder
    artist: str
    genre: str
    lyrics: str = ""
    primed: bool = False  # starts with the prompt
    offset_seconds: float = 0.0  # where in the song it begins


@dataclass(frozen=True)
class Material:
    """The songs of a demo and their common settings."""

    songs: tuple[DemoSong, ...]
    seconds: float  # of each
    prompt_seconds: float
    prompt: Path | None = None  # a sound file; default: a plucked chord
    total_seconds: float | None = None  # length of the whole song that the model is conditioned on
    levels: tuple[LevelSettings, ...] = (LevelSettings(),) * 3

    def write(self, folder: Path) -> None:
        """Write the prompt and the lyrics as files."""
        for song in self.songs:
            if song.lyrics:
                _lyrics_file(folder, song).write_text(song.lyrics, encoding="utf-8")
        if self.prompt is None:
            write_chord(folder / PROMPT_FILE)
        else:
            shutil.copyfile(self.prompt, folder / PROMPT_FILE)

    def jobs(self, folder: Path) -> list[SongJob]:
        """Return the songs, as the command line with `options` samples them."""
        return [SongJob(self._request(song, folder), folder / song.name) for song in self.songs]

    def _request(self, song: DemoSong, folder: Path) -> SongRequest:
        request = SongRequest(
            seconds=self.seconds,
            artist=song.artist,
            genre=song.genre,
            lyrics=song.lyrics,
            total_seconds=self.total_seconds,
            offset_seconds=song.offset_seconds,
            seed=_SEED,
            levels=self.levels,
        )
        if not song.primed:
            return request
        prompt = str(folder / PROMPT_FILE)
        return replace(request, mode=Mode.PRIMED, source=prompt, source_seconds=self.prompt_seconds)

    def options(self, song: DemoSong, folder: Path) -> list[object]:
        """Return the command-line options that sample a song."""
        options: list[object] = []
        if song.primed:
            options += ["--prompt", folder / PROMPT_FILE, "--prompt-seconds", self.prompt_seconds]
        if song.lyrics:
            options += ["--lyrics-file", _lyrics_file(folder, song)]
        options += [*self.labels(song), "--seconds", self.seconds]
        if song.offset_seconds:
            options += ["--offset", song.offset_seconds]
        return [*options, *self.settings(), "--seed", _SEED]

    def labels(self, song: DemoSong) -> tuple[str, ...]:
        """Return artist and genre as options."""
        return ("--artist", song.artist, "--genre", song.genre)

    def settings(self) -> list[str]:
        """Return the options that all songs share: their total length, and how codes are sampled."""
        return settings_options(self.levels, self.total_seconds)


def _lyrics_file(folder: Path, song: DemoSong) -> Path:
    return folder / f"{song.name}.txt"


UNTRAINED = Material(
    songs=(
        DemoSong("primed", "the tin foxes", "folk", primed=True),
        DemoSong(
            "ancestral",
            "the tin foxes",
            "folk",
            lyrics="""Slow water over old stones,
a light on the other side,
and all of the hills are humming
the song of the turning tide.""",
        ),
    ),
    seconds=3.0,
    prompt_seconds=1.5,
)
"""For `tiny` with random weights; the names are made up."""

UNTRAINED_ARTISTS = {n: i for i, n in enumerate(("unknown", "the tin foxes", "glass harbour", "paper lanterns"))}
UNTRAINED_GENRES = {n: i for i, n in enumerate(("unknown", "folk", "jazz", "ambient", "polka"))}

_TRAINED_SONGS = (
    # The prompt of the shipped model is the beginning of a song by this artist.
    DemoSong("primed", "the night ferry", "lullaby", primed=True),
    DemoSong("played", "organ valley", "folk"),
    DemoSong(
        "sung",
        "eight bit harbour",
        "dance",
        lyrics="""river, take me over the water,
slowly into the golden night.
sing to me, sing to me, silver moon,
carry the morning light.""",
        offset_seconds=10.0,  # skip the introduction, which has no voice
    ),
)


def trained_material(bundle: Path, levels: int) -> Material:
    """Return songs for a model trained on `data synthesize`, with its own prompt and sampling settings, if any.

    `levels`: the number of levels of the model. Raises `SamplingError` for invalid settings.
    """
    advice, prompt = read_advice(bundle, levels), bundle / PROMPT_FILE
    return Material(
        songs=_TRAINED_SONGS,
        seconds=6.0,
        prompt_seconds=2.048,
        prompt=prompt if prompt.exists() else None,
        total_seconds=advice.total_seconds or _SONG_SECONDS,
        levels=advice.all_settings(levels),
    )


def write_id_lists(folder: Path, artists: Mapping[str, int], genres: Mapping[str, int]) -> None:
    """Write names as `v3_artist_ids.txt` and `v3_genre_ids.txt`, one `name;id` per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, names in (("artist", artists), ("genre", genres)):
        lines = [f"{name};{number}\n" for name, number in names.items()]
        (folder / f"v3_{kind}_ids.txt").write_text("".join(lines), encoding="utf-8")
