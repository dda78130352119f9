"""Names of artists and genres, and their ids in the models (specification section 11).

The released lists are not part of this project; `vocabulary_files` reads them from files of the user.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from jukebox_deploy.config import LabelConfig, LabelRules
from jukebox_deploy.config_json import json_words
from jukebox_deploy.errors import LabelError
from jukebox_deploy.listing import words_of

UNKNOWN_ID = 0
"""The id of every name that a model does not know."""

_EXPLICIT_IDS = re.compile(r"#\d+(?:[\s,]+#\d+)*", re.ASCII)


def normalise(name: str) -> str:
    """Lower-case a name and replace each run of characters outside a-z and 0-9 by one `_`, with none at the ends."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def canonical(name: str, rules: LabelRules) -> str:
    """Spell a name as in the lists of these rules."""
    return normalise(name) if rules is LabelRules.WORDS else name.lower()


@dataclass(frozen=True)
class UnknownName:
    """A name without an id. The model gets id 0; `str()` gives a warning for the user."""

    kind: str  # "artist" or "genre"
    name: str
    close: tuple[str, ...] = ()  # similar known names, best match first
    has_list: bool = True  # whether there is any list of names of this kind

    def __str__(self) -> str:
        if not self.has_list:
            return (
                f"There is no list of {self.kind} names, so {self.name!r} is taken as unknown (id 0). "
                f"Import one with the checkpoint, or give an id such as #12."
            )
        hint = f" Close names: {', '.join(map(repr, self.close))}." if self.close else ""
        return f"The model does not know the {self.kind} {self.name!r} and takes it as unknown (id 0).{hint}"


@dataclass(frozen=True)
class UnnamedId:
    """An id that has no name in the list; `str()` gives a warning for the user."""

    kind: str  # "artist" or "genre"
    number: int
    named: tuple[int, ...]  # the ids that have names

    def __str__(self) -> str:
        return (
            f"No {self.kind} of the model has the number #{self.number}, so nothing may have been learned for it. "
            f"The list has names for #{min(self.named)} to #{max(self.named)}."
        )


@dataclass(frozen=True)
class NameMatch:
    """The ids of an artist (one) or of genres (one or more), and the names that have no id."""

    ids: tuple[int, ...]
    unknown: tuple[UnknownName, ...] = ()


@dataclass(frozen=True)
class NameLists:
    """Name -> id for artists and genres under one rule set. Names are lower-case."""

    artists: Mapping[str, int] = field(default_factory=dict)
    genres: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVocabulary:
    """The lists that one prior uses; raises `LabelError` if they have ids that the prior's tables lack."""

    labels: LabelConfig
    names: NameLists

    def __post_init__(self) -> None:
        _check_range("artist", self.names.artists, self.labels.artists)
        _check_range("genre", self.names.genres, self.labels.genres)

    def artist(self, name: str) -> NameMatch:
        """Return the id of an artist's name or of a text such as `#12`; raise `LabelError` for unknown ids."""
        explicit = _explicit_ids("artist", name, self.labels.artists)
        if len(explicit) > 1:
            raise LabelError(f"A song has one artist, found {len(explicit)} in {name!r}.")
        return NameMatch(explicit) if explicit else self._match("artist", [name], self.names.artists)

    def genres(self, text: str) -> NameMatch:
        """Return the ids of a genre, of the words of a genre (rules "v2"), or of a text such as `#3 #17`.

        Raises `LabelError` for more genres than the model has slots and for ids outside the table.
        """
        match = NameMatch(_explicit_ids("genre", text, self.labels.genres))
        if not match.ids:
            words = normalise(text).split("_") if self.labels.rules is LabelRules.WORDS else [text]
            self._check_slots(len(words), text)
            match = self._match("genre", words, self.names.genres)
        self._check_slots(len(match.ids), text)
        return match

    def unnamed(self, artist: int, genres: Iterable[int]) -> tuple[UnnamedId, ...]:
        """Return those of a song's ids that have no name.

        The id of unknown names is not among them, nor is any id of a kind that has no list at all.
        """
        return (
            *_unnamed("artist", [artist], self.names.artists),
            *_unnamed("genre", genres, self.names.genres),
        )

    def _check_slots(self, count: int, text: str) -> None:
        if count > self.labels.genre_slots:
            raise LabelError(
                f"The genre {text!r} has {count} parts, the model takes at most {self.labels.genre_slots}. "
                "Leave some out."
            )

    def _match(self, kind: str, names: Iterable[str], known: Mapping[str, int]) -> NameMatch:
        ids, unknown = [], []
        for name in names:
            key = canonical(name, self.labels.rules)
            ids.append(known.get(key, UNKNOWN_ID))
            # An empty name or "unknown" is deliberate and needs no warning.
            if key not in known and key.strip() not in ("", "unknown"):
                unknown.append(UnknownName(kind, name, _close_names(key, known), has_list=bool(known)))
        return NameMatch(tuple(ids), tuple(unknown))


@dataclass(frozen=True)
class Vocabulary:
    """The lists of both rule sets, as far as they are available.

    A model may need both: the upsamplers of 1b_lyrics use "v2", its top prior "v3". The empty vocabulary,
    `Vocabulary()`, knows no names, only ids such as `#12`.
    """

    lists: Mapping[LabelRules, NameLists] = field(default_factory=dict)

    def for_model(self, labels: LabelConfig) -> ModelVocabulary:
        """Return the lists for a prior with these labels; raise `LabelError` if they do not fit its tables."""
        return ModelVocabulary(labels, self.lists.get(labels.rules, NameLists()))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON data: `{"v2": {"artists": {name: id}, "genres": {name: id}}, "v3": ...}`."""
        return {
            rules.value: {"artists": dict(names.artists), "genres": dict(names.genres)}
            for rules, names in self.lists.items()
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "vocabulary") -> Self:
        """Convert from the data of `to_json`; raise `LabelError` for invalid data, which `where` names."""
        lists = {}
        for key, names in parse_object(data, where).items():
            if key not in set(LabelRules):
                raise LabelError(f"{where}: {key!r} is not one of the rule sets {words_of(LabelRules)}.")
            if sorted(parse_object(names, f"{where}.{key}")) != ["artists", "genres"]:
                raise LabelError(
                    f"{where}.{key}: expected artists and genres, found {words_of(sorted(names)) or 'nothing'}."
                )
            lists[LabelRules(key)] = NameLists(
                *(parse_names(names[kind], f"{where}.{key}.{kind}") for kind in ("artists", "genres"))
            )
        return cls(lists)


def parse_object(data: Any, where: str) -> dict[str, Any]:
    """Check that JSON data is an object; raise a `LabelError` that begins with `where` if not."""
    if not isinstance(data, dict):
        raise LabelError(f"{where}: expected an object, found {type(data).__name__}.")
    return data


def parse_names(data: Any, where: str) -> dict[str, int]:
    """Check that JSON data is an object of name -> id, and lower-case its names; raise `LabelError` if it is not."""
    names = parse_object(data, where)
    for name, number in names.items():
        if type(number) is not int or number < 0:
            raise LabelError(f"{where}: the id of {name!r} must be an integer from 0, found {json_words(number)}.")
    return {name.lower(): number for name, number in names.items()}


def _check_range(kind: str, names: Mapping[str, int], rows: int) -> None:
    outside = {name: number for name, number in names.items() if number >= rows}
    if outside:
        name, number = next(iter(outside.items()))
        raise LabelError(
            f"The list of {kind} names does not belong to this model: the model has ids 0 to {rows - 1}, but the list "
            f"has {len(outside)} higher ones, such as {number} for {name!r}. Give the list of this model."
        )


def _explicit_ids(kind: str, text: str, rows: int) -> tuple[int, ...]:
    """Return the ids in a text such as `#3 #17`; none if the text is anything else."""
    if not _EXPLICIT_IDS.fullmatch(text.strip()):
        return ()
    ids = tuple(int(part) for part in re.findall(r"\d+", text))
    for number in ids:
        if number >= rows:
            raise LabelError(f"There is no {kind} #{number}: the model has #0 to #{rows - 1}.")
    return ids


def _unnamed(kind: str, ids: Iterable[int], known: Mapping[str, int]) -> tuple[UnnamedId, ...]:
    named = {*known.values(), UNKNOWN_ID}
    return tuple(UnnamedId(kind, number, tuple(sorted(named))) for number in ids if known and number not in named)


def _close_names(key: str, known: Mapping[str, int]) -> tuple[str, ...]:
    candidates = [name for name, number in known.items() if number != UNKNOWN_ID]
    return tuple(difflib.get_close_matches(key, candidates, n=3))
