"""Small priors, label rows as the original writes them, and the lists and the tokenizer of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.config import LabelConfig, LabelRules, LyricsConfig, PriorConfig, TimingConfig, TransformerConfig
from jukebox_deploy.labels.rows import SongLabels, WindowLabels

RATE = 44_100
TOP_HOP_LENGTH = 128
SLOTS = {LabelRules.WORDS: 5, LabelRules.NAMES: 1}
VOCABULARY_SIZES = {LabelRules.WORDS: 80, LabelRules.NAMES: 79}


def small_prior(
    rules: LabelRules, window: int, lyric_count: int = 40, timing: TimingConfig | None = None
) -> PriorConfig:
    """A top prior for the goldens' lists of names."""
    return PriorConfig(
        level=2,
        window=window,
        codebook_size=16,
        transformer=TransformerConfig(window + lyric_count, width=8, depth=1, heads=1),
        labels=LabelConfig(rules, artists=9, genres=8, genre_slots=SLOTS[rules], timing=timing),
        lyrics=LyricsConfig(lyric_count, VOCABULARY_SIZES[rules]),
    )


def label_row(labels: WindowLabels, song: SongLabels, start: int, hop_length: int, window: int) -> list[int]:
    """A row in the original's order: total, offset, length, artist, genres, lyrics."""
    arrays = labels.arrays()
    lengths = [song.total_length, song.offset + start * hop_length, window * hop_length]
    return [*lengths, *(int(v) for name in ("artist", "genres", "lyric_tokens") for v in np.ravel(arrays[name]))]


def hugging_face_lists(golden: dict[str, Any], kind: str) -> dict[str, int]:
    """Both rule sets in one list, as in the published tokenizers."""
    words = {f"{name}.v2": number for name, number in golden["v2"][f"{kind}_ids"].items()}
    return {**golden["v3"][f"{kind}_ids"], **words}


def hugging_face_tokenizer(golden: dict[str, Any], folder: Path, *versions: str) -> Any:
    """The tokenizer of `transformers` for the goldens' lists; it takes its lyric characters from the first version."""
    transformers = pytest.importorskip("transformers", "4.57.6")
    if not hasattr(transformers, "JukeboxTokenizer"):
        pytest.skip("this version of transformers has no Jukebox any more")
    characters = {character: i for i, character in enumerate(golden[versions[0]]["characters"], start=1)}
    lists = {"lyrics": {"<unk>": 0, **characters}}
    lists |= {f"{kind}s": hugging_face_lists(golden, kind) for kind in ("artist", "genre")}
    for name, ids in lists.items():
        (folder / f"{name}.json").write_text(json.dumps(ids))
    files = {f"{name}_file": folder / f"{name}.json" for name in lists}
    slots = max(SLOTS[LabelRules(version)] for version in versions)
    return transformers.JukeboxTokenizer(**files, version=list(versions), n_genres=slots)
