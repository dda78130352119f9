"""Sampling requests with the artists, genres, lyrics and lengths of songs in a corpus.

The sampled songs can be compared with the corpus, see `jukebox-deploy evaluate-songs`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.errors import DataError
from jukebox_deploy.files import write_text_atomic


def corpus_requests(catalogue: Catalogue, seconds: float, place: float = 0.3) -> tuple[dict[str, Any], ...]:
    """Return a request for each song of a corpus, with fields of `SongRequest`.

    A request is for `seconds` of the song, at `place` in it (0: its beginning, 1: its end). The model is conditioned on
    its real total length, as in training. Raises `DataError` if a song is shorter than `seconds`.
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
    """Write requests as JSON lines, for `jukebox-deploy sample --requests`; the file is written atomically."""
    write_text_atomic(path, "".join(json.dumps(request, ensure_ascii=False) + "\n" for request in requests))
