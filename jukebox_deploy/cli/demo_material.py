"""What the demonstration is made of: the songs that it asks for, and names and a prompt for a model without its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jukebox_deploy.cli.demo_chord import write_chord
from jukebox_deploy.jobs.shipped_model import PROMPT_FILE, sampling_advice
from jukebox_deploy.runtime.sampler import SongJob
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest

_SEED = 1
_SONG_SECONDS = 60.0  # about as long as songs of `data synthesize` are


@dataclass(frozen=True)
class DemoSong:
    """A song that the demonstration asks for, as far as it is not like the others."""

    name: str  # of its folder
    artist: str
    genre: str
    lyrics: str = ""
    primed: bool = False  # begins with the prompt
    offset_seconds: float = 0.0  # where in the song it begins


@dataclass(frozen=True)
class Material:
    """The songs of a demonstration."""

    songs: tuple[DemoSong, ...]
    seconds: float  # of each
    prompt_seconds: float
    prompt: Path | None = None  # a sound file; default: a plucked chord
    total_seconds: float | None = None  # how long the model is told a song is
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
        """The songs, as the commands of `options` make them."""
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
        """What the command line needs to make one of the songs."""
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
        """Artist and genre as options."""
        return ("--artist", song.artist, "--genre", song.genre)

    def settings(self) -> list[object]:
        """What all songs have in common, as options: how long the model is told they are, and how codes are drawn."""
        options: list[object] = ["--total-seconds", self.total_seconds] if self.total_seconds else []
        for level, settings in enumerate(self.levels):
            for name in ("temperature", "top_k", "top_p"):
                value = getattr(settings, name)
                if value != getattr(LevelSettings, name):
                    options += [f"--{name.replace('_', '-')}", f"{level}={value}"]
        return options


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
"""For `tiny` with random weights, whose names are made up."""

UNTRAINED_ARTISTS = {n: i for i, n in enumerate(("unknown", "the tin foxes", "glass harbour", "paper lanterns"))}
UNTRAINED_GENRES = {n: i for i, n in enumerate(("unknown", "folk", "jazz", "ambient", "polka"))}

_TRAINED_SONGS = (
    # The prompt of the shipped model is the beginning of a song of theirs.
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
        offset_seconds=10.0,  # introductions have no voice
    ),
)


def trained_material(bundle: Path, levels: int) -> Material:
    """For a model that has learnt from `data synthesize`; it may bring a prompt, and settings for sampling.

    `levels`: how many the model has. Raises `SamplingError` for settings that cannot be.
    """
    advice, prompt = sampling_advice(bundle, levels), bundle / PROMPT_FILE
    return Material(
        songs=_TRAINED_SONGS,
        seconds=6.0,
        prompt_seconds=2.048,
        prompt=prompt if prompt.exists() else None,
        total_seconds=advice.total_seconds or _SONG_SECONDS,
        levels=advice.levels,
    )


def write_id_lists(folder: Path, artists: Mapping[str, int], genres: Mapping[str, int]) -> None:
    """Write names as `v3_artist_ids.txt` and `v3_genre_ids.txt`, one `name;id` per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, names in (("artist", artists), ("genre", genres)):
        lines = [f"{name};{number}\n" for name, number in names.items()]
        (folder / f"v3_{kind}_ids.txt").write_text("".join(lines), encoding="utf-8")
