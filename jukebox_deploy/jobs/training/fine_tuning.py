"""Names that a prior is to learn, and released weights fitted to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from jukebox_deploy.checkpoints.tensors import TensorSource
from jukebox_deploy.config import LabelConfig, LabelRules, PriorConfig
from jukebox_deploy.data.catalogue import SongEntry
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary, canonical

UNKNOWN = "unknown"
"""The name of id 0."""

_TABLES = {"labels.artist.weight": "artists", "labels.genre.weight": "genres"}
"""The tables with a row per name, and the list that the names are in."""


def vocabulary_of(songs: Iterable[SongEntry], rules: LabelRules) -> Vocabulary:
    """Lists of all names in the songs' labels, in alphabetical order; id 0 stands for all others."""
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
    """The prior with tables that have a row for every name; they only grow."""
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


def begin_with(
    fresh: Mapping[str, Tensor], source: TensorSource, labels: LabelConfig | None, before: Vocabulary, now: Vocabulary
) -> dict[str, Tensor]:
    """Weights to begin fine-tuning with: those of `source`, and fresh ones where it has none.

    Rows of artists and genres go by name: a name that both vocabularies know keeps its row, every other
    one begins with that of the unknown name, id 0. Without an earlier vocabulary rows keep their ids.

    Raises `ConfigError` where a tensor has another shape.
    """
    weights = {}
    for name, tensor in fresh.items():
        trained = source.load(name).to(tensor.dtype) if name in source.infos else None
        if trained is not None and name in _TABLES and labels is not None:
            trained = _rows_by_name(tensor, trained, _list(before, labels, name), _list(now, labels, name))
        if trained is not None and trained.shape != tensor.shape:
            raise ConfigError(
                f"{name} of the bundle is {list(trained.shape)}, of the model that is trained {list(tensor.shape)}; "
                "fine-tune the bundle's own model."
            )
        weights[name] = tensor if trained is None else trained
    return weights


def _list(vocabulary: Vocabulary, labels: LabelConfig, table: str) -> Mapping[str, int]:
    lists = vocabulary.lists.get(labels.rules, NameLists())
    names: Mapping[str, int] = getattr(lists, _TABLES[table])
    return names


def _rows_by_name(fresh: Tensor, trained: Tensor, before: Mapping[str, int], now: Mapping[str, int]) -> Tensor:
    if not before or before == now:
        rows = fresh.clone()
        rows[: len(trained)] = trained[: len(rows)]
        return rows
    rows = trained[:1].repeat(len(fresh), 1)
    for name, number in now.items():
        if name in before:
            rows[number] = trained[before[name]]
    return rows
