"""Songs to ask a model for, as those of a corpus are: their artists, genres, lyrics and lengths.

What a model makes of them can be held against the corpus, see `jukebox-deploy evaluate-songs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.errors import DataError
from jukebox_deploy.files import atomic_path


def corpus_requests(catalogue: Catalogue, seconds: float, place: float = 0.3) -> tuple[dict[str, Any], ...]:
    """A request for each song of a corpus, with fields of `SongRequest`.

    A request is for `seconds` of the song, `place` (0: its beginning, 1: its end) of the way through it. The model
    is told its real length, as it was in training. Raises `DataError` if a song is shorter than that.
    """
    for song in catalogue.songs:
        if song.seconds < seconds:
            raise DataError(
                f"{song.name}: lasts {song.seconds:.2f} s, and {seconds:g} s of it are to be asked for; give fewer."
            )
    return tuple(
        {
            "artist": song.artist,
            "genre": song.genres[0] if song.genres else "",
            "lyrics": song.lyrics,
            "seconds": seconds,
            "total_seconds": round(song.seconds, 3),
            "offset_seconds": round(place * (song.seconds - seconds), 3),
        }
        for song in catalogue.songs
    )


def write_requests(requests: Sequence[dict[str, Any]], path: Path) -> None:
    """Write requests as JSON lines, for `jukebox-deploy sample --requests`; the file is whole or not there."""
    with atomic_path(path) as unfinished:
        unfinished.write_text("".join(_lines(requests)), encoding="utf-8")


def _lines(requests: Iterable[dict[str, Any]]) -> Iterable[str]:
    return (json.dumps(request, ensure_ascii=False) + "\n" for request in requests)
