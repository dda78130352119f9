"""Labels that a song inherits from the `song.json` of the song whose codes it starts from."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from jukebox_deploy.runtime.song import FROM_CODES, SongRequest
from jukebox_deploy.runtime.store import holds_song, read_record

TAKEN_OVER = ("artist", "genre", "lyrics", "total_seconds", "offset_seconds")
"""The inherited fields of a request: those that condition the model on a song."""


def with_labels_of_source(request: SongRequest, given: Container[str], folder: Path) -> SongRequest:
    """Return the request with fields from its source, except those that are `given`; unchanged for other modes.

    The song starts at the same offset as its source, with whose codes it starts. It keeps the total length of the
    source unless it extends beyond that; then it ends where sampling ends. A song already started in `folder` has
    these fields in its own `song.json`, and its source may no longer exist. Raises `SamplingError` for a source
    without a `song.json`.
    """
    if request.mode not in FROM_CODES:
        return request
    begun = holds_song(folder)
    there = read_record(folder if begun else Path(request.source or "")).request
    taken: dict[str, Any] = {name: getattr(there, name) for name in TAKEN_OVER if name not in given}
    end = taken.get("offset_seconds", request.offset_seconds) + (request.seconds or 0.0)
    if not begun and (taken.get("total_seconds") or end) < end:
        taken["total_seconds"] = None
    return replace(request, **taken)
