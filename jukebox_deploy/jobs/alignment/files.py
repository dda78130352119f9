"""The output files of an alignment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jukebox_deploy.files import atomic_path, write_json_atomic, write_text_atomic
from jukebox_deploy.jobs.alignment.picture import write_alignment_picture
from jukebox_deploy.jobs.alignment.song_alignment import SongAlignment
from jukebox_deploy.jobs.alignment.subtitles import lrc, web_vtt

ATTENTION_FILE, WORDS_FILE, PICTURE_FILE = "alignment.npz", "words.json", "alignment.png"
LRC_FILE, VTT_FILE = "lyrics.lrc", "lyrics.vtt"
ALIGNMENT_FILES = (ATTENTION_FILE, WORDS_FILE, LRC_FILE, VTT_FILE, PICTURE_FILE)


def write_alignment(
    out: Path, attention: np.ndarray, alignment: SongAlignment, origin: Mapping[str, Any], title: str
) -> None:
    """Write all files of a song's alignment into a folder, in place of earlier ones; each is written atomically.

    `attention` is `[codes, characters]`. `origin`: plain data that goes with the words; `title`: of the picture.
    """
    with atomic_path(out / ATTENTION_FILE) as path, path.open("wb") as file:
        np.savez_compressed(
            file,
            attention=attention,
            hop_length=alignment.hop_length,
            sample_rate=alignment.sample_rate,
            lyrics=alignment.lyrics,
            characters=alignment.characters,
        )
    write_json_atomic(out / WORDS_FILE, {**origin, **alignment.to_json()})
    write_text_atomic(out / LRC_FILE, lrc(alignment.lines))
    write_text_atomic(out / VTT_FILE, web_vtt(alignment.lines))
    write_alignment_picture(out / PICTURE_FILE, attention, alignment, title)
