"""What a song that begins with the codes of another takes over from that one's `song.json`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from jukebox_deploy.runtime.song import FROM_CODES, SongRequest
from jukebox_deploy.runtime.store import SongStore, read_record

TAKEN_OVER = ("artist", "genre", "lyrics", "total_seconds", "offset_seconds")
"""The fields of a request that tell the model what song it is in."""


def with_labels_of_source(request: SongRequest, given: Container[str], folder: Path) -> SongRequest:
    """The request with what its source was told, but for the fields that are `given`; for other modes as it is.

    Its first code is that of the source, so it lies where that lies in the song. The song keeps its length, unless
    it goes on beyond: then it ends with what is sampled. A song that was begun in `folder` has taken all this
    over already, and its source may be gone. Raises `SamplingError` for a source without a `song.json`.
    """
    if request.mode not in FROM_CODES:
        return request
    begun = SongStore(folder).begun
    there = read_record(folder if begun else Path(request.source or "")).request
    taken: dict[str, Any] = {name: getattr(there, name) for name in TAKEN_OVER if name not in given}
    end = taken.get("offset_seconds", request.offset_seconds) + (request.seconds or 0.0)
    if not begun and (taken.get("total_seconds") or end) < end:
        taken["total_seconds"] = None
    return replace(request, **taken)
