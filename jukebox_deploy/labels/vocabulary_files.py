"""Reading of lists of artists and genres from files of the user (specification section 11).

Two layouts are supported: the four `name;id` lists of OpenAI's source tree, and the tokenizer files of a Hugging Face
checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jukebox_deploy.config import LabelRules
from jukebox_deploy.errors import LabelError
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary, parse_names, parse_object
from jukebox_deploy.listing import listed

_OPENAI_FOLDERS = ("", "jukebox/data/ids", "data/ids")
_HUGGING_FACE_SUFFIX = ".v2"  # of the names of the rules "v2"; names of "v3" have no suffix
_HUGGING_FACE_FILES = ("artists.json", "genres.json", "vocab.json")


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the lists at `path`: OpenAI's source tree or its folder of ids, or a Hugging Face tokenizer.

    `path` may also be one of the Hugging Face files, with the others beside it. Raises `LabelError` if lists are
    missing or invalid.
    """
    if (found := find_vocabulary(path)) is not None:
        return found
    raise LabelError(
        f"{path}: no lists of artists and genres here. Expected OpenAI's v2_artist_ids.txt, v2_genre_ids.txt, "
        "v3_artist_ids.txt and v3_genre_ids.txt, or Hugging Face's artists.json and genres.json."
    )


def find_vocabulary(path: Path) -> Vocabulary | None:
    """Read the lists at `path` as `read_vocabulary` does; return `None` if there are none.

    Raises `LabelError` if there are lists, but they are incomplete or invalid.
    """
    folder = path.parent if path.name in _HUGGING_FACE_FILES else path
    for candidate in (folder / part for part in _OPENAI_FOLDERS):
        if any(path.is_file() for rules in LabelRules for path in _openai_files(candidate, rules)):
            return read_openai_folder(candidate)
    if any((folder / name).is_file() for name in _HUGGING_FACE_FILES):
        return read_hugging_face_folder(folder)
    return None


def read_openai_folder(folder: Path) -> Vocabulary:
    """Read `v2_artist_ids.txt` and so on; a whole rule set may be missing, but not only one of its two lists."""
    lists = {}
    for rules in LabelRules:
        paths = _openai_files(folder, rules)
        if any(path.is_file() for path in paths):
            lists[rules] = NameLists(*(read_openai_list(path) for path in paths))
    return Vocabulary(lists)


def read_openai_list(path: Path) -> dict[str, int]:
    """Read lines of `name;id` (UTF-8). Names are lower-cased; the last of equal names wins."""
    names: dict[str, int] = {}
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line:
            continue
        name, separator, id_text = line.rpartition(";")
        if not separator or not re.fullmatch(r"\s*\d+\s*", id_text, re.ASCII):
            raise LabelError(f"{path}, line {number}: expected name;id, found {line!r}.")
        names[name.lower()] = int(id_text)
    return names


def read_hugging_face_folder(folder: Path) -> Vocabulary:
    """Read `artists.json` and `genres.json`, or else `vocab.json`, which contains both.

    Names of the rules "v2" end in `.v2` in these files; the suffix is removed.
    """
    if (folder / "artists.json").is_file() or (folder / "genres.json").is_file():
        artists, genres = (parse_names(_read_json(folder / f), str(folder / f)) for f in _HUGGING_FACE_FILES[:2])
    else:
        path = folder / "vocab.json"
        data = parse_object(_read_json(path), str(path))
        artists, genres = (_part(data, kind, path) for kind in ("artists", "genres"))
    lists = {rules: NameLists(_of_rules(artists, rules), _of_rules(genres, rules)) for rules in LabelRules}
    return Vocabulary({rules: names for rules, names in lists.items() if names.artists or names.genres})


def _openai_files(folder: Path, rules: LabelRules) -> list[Path]:
    """Return the paths of the two lists of a rule set."""
    return [folder / f"{rules.value}_{kind}_ids.txt" for kind in ("artist", "genre")]


def _part(data: dict[str, Any], kind: str, path: Path) -> dict[str, int]:
    """Return one list of a `vocab.json`, under its plain key or that of `JukeboxTokenizer.get_vocab`."""
    for key in (kind, f"{kind}_encoder"):
        if key in data:
            return parse_names(data[key], f"{path}, {key}")
    raise LabelError(f"{path}: expected a list {kind!r}, found {listed(sorted(data), 5) or 'nothing'}.")


def _of_rules(names: Mapping[str, int], rules: LabelRules) -> dict[str, int]:
    """Return the names of one rule set from a list that holds both, without their suffix."""
    marked = rules is LabelRules.WORDS
    return {
        name.removesuffix(_HUGGING_FACE_SUFFIX) if marked else name: number
        for name, number in names.items()
        if name.endswith(_HUGGING_FACE_SUFFIX) is marked
    }


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LabelError(f"{path}: this list is missing; put it beside the others.") from None
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not UTF-8 text ({error}).") from error
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error}).") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise LabelError(f"{path}: not JSON ({error}).") from error
