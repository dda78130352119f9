"""Lists of the names in the labels of songs, and weights to begin fine-tuning with that follow such lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from jukebox_deploy.checkpoints.tensors import TensorSource
from jukebox_deploy.config import LabelConfig, LabelRules, PriorConfig
from jukebox_deploy.data.catalogue import SongEntry
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary, canonical

UNKNOWN = "unknown"
"""The name of id 0."""

_TABLES = {"labels.artist.weight": "artists", "labels.genre.weight": "genres"}
"""Embedding tables with a row per name, and the list (an attribute of `NameLists`) that has the names."""


def vocabulary_of(songs: Iterable[SongEntry], rules: LabelRules) -> Vocabulary:
    """Return lists of all names in the labels of songs, in alphabetical order from id 1; id 0 is "unknown"."""
    entries = list(songs)
    artists = {canonical(song.artist, rules) for song in entries}
    genres = {canonical(genre, rules) for song in entries for genre in song.genres}
    if rules is LabelRules.WORDS:  # genres are bags of words
        genres = {word for genre in genres for word in genre.split("_")}
    return Vocabulary({rules: NameLists(_numbered(artists), _numbered(genres))})


def _numbered(names: set[str]) -> dict[str, int]:
    known = sorted(names - {"", UNKNOWN})
    return {name: number for number, name in enumerate([UNKNOWN, *known])}


def fit_label_tables(prior: PriorConfig, vocabulary: Vocabulary) -> PriorConfig:
    """Return the prior with label tables that have a row for every id of the vocabulary; tables never shrink."""
    if prior.labels is None or prior.labels.rules not in vocabulary.lists:
        return prior
    names = vocabulary.lists[prior.labels.rules]
    return replace(
        prior,
        labels=replace(
            prior.labels,
            artists=max(prior.labels.artists, 1 + max(names.artists.values(), default=0)),
            genres=max(prior.labels.genres, 1 + max(names.genres.values(), default=0)),
        ),
    )


def initial_weights(
    fresh: Mapping[str, Tensor], source: TensorSource, labels: LabelConfig | None, before: Vocabulary, now: Vocabulary
) -> dict[str, Tensor]:
    """Return the weights that fine-tuning begins with: those of `source`, with label tables for the names of the run.

    A name in both vocabularies keeps its row, and any other name begins with the row of the unknown name, id 0. Without
    an earlier vocabulary, rows keep their ids.

    Args:
        fresh: newly initialised weights by name, as in `source` except for larger label tables.
        source: the bundle's weights.
        labels: the labels of the model to train.
        before: the vocabulary of the bundle.
        now: the vocabulary of the run.
    """
    weights = {name: source.load(name).to(tensor.dtype) for name, tensor in fresh.items()}
    if labels is not None:
        for name in _TABLES:
            ids = (_ids_of_table(vocabulary, labels, name) for vocabulary in (before, now))
            weights[name] = _rows_by_name(fresh[name], weights[name], *ids)
    return weights


def _ids_of_table(vocabulary: Vocabulary, labels: LabelConfig, table: str) -> Mapping[str, int]:
    """Return the ids by name for an embedding table; none if the vocabulary has no such list."""
    lists = vocabulary.lists.get(labels.rules, NameLists())
    ids: Mapping[str, int] = getattr(lists, _TABLES[table])
    return ids


def _rows_by_name(fresh: Tensor, trained: Tensor, before: Mapping[str, int], now: Mapping[str, int]) -> Tensor:
    """Return an embedding table `[names now, width]` with the rows of `trained`, `[names before, width]`."""
    if not before or before == now:
        rows = fresh.clone()
        rows[: len(trained)] = trained[: len(rows)]
        return rows
    rows = trained[:1].repeat(len(fresh), 1)
    for name, number in now.items():
        if name in before:
            rows[number] = trained[before[name]]
    return rows
