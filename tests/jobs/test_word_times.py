"""Words get the times at which attention is on them, whatever else it is on."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jukebox_deploy.config import LabelRules
from jukebox_deploy.jobs.alignment.song_alignment import SongAlignment
from jukebox_deploy.jobs.alignment.word_times import Word, lyric_words, monotone_path, sung_words
from jukebox_deploy.labels.lyrics import LyricAlphabet

PACE = 5  # codes per character
LYRICS = "one two\nthree four five\nsix"


def words_of(lyrics: str) -> tuple[Word, ...]:
    return lyric_words(lyrics, LyricAlphabet(LabelRules.NAMES).clean(lyrics).places)


def singing(order: list[int | None], characters: int, strength: float = 0.6) -> np.ndarray:
    """Attention `[codes, characters]` that rests `PACE` codes on each character in turn; `None`: on nothing.

    Everything else gets what is left, unevenly.
    """
    rng = np.random.default_rng(3)
    matrix = rng.uniform(0.5, 1.5, (len(order) * PACE, characters))
    matrix *= (1 - strength) / matrix.sum(axis=1, keepdims=True)
    for place, character in enumerate(order):
        if character is not None:
            matrix[place * PACE : (place + 1) * PACE, character] += strength
    return matrix.astype(np.float32)


def codes_of(order: list[int | None], words: tuple[Word, ...]) -> list[range]:
    """At which codes each word is sung by `singing`."""
    places = [[i for i, character in enumerate(order) if character in range(w.first, w.stop)] for w in words]
    return [range(p[0] * PACE, (p[-1] + 1) * PACE) if p else range(0) for p in places]


ALL = list(range(len(LYRICS)))
REST: list[int | None] = [None] * 40


@pytest.mark.parametrize(
    "order",
    [
        ALL,
        [*REST, *ALL, *REST],
        [*ALL[:7], *REST, *ALL[7:]],
        [*ALL[:10], *REST, *ALL[10:]],
        [*ALL[:4], *ALL[14:]],
        ALL[8:19],
        [0, 0, 0, 0, *ALL, *[ALL[-1]] * 9],
    ],
    ids=[
        "from front to back",
        "rests before and after",
        "a rest between lines",
        "a rest within a word",
        "a part that is left out",
        "the middle alone",
        "long tones",
    ],
)
def test_words_have_the_times_at_which_they_are_sung(order: list[int | None]) -> None:
    words = words_of(LYRICS)
    found = sung_words(singing(order, len(LYRICS)), words)
    assert [sung.codes for sung in found] == codes_of(order, words)
    for sung in found:
        if sung.codes and len(sung.codes) < 40 * PACE:  # without a rest in it
            assert sung.focus.share > 0.8
            assert sung.focus.chance == pytest.approx((sung.word.stop - sung.word.first) / len(LYRICS), abs=0.01)


def test_a_refrain_that_comes_back_is_sung_twice() -> None:
    """Whenever it is sung, its other place gets nearly as much attention."""
    lyrics = "la lo\nverse\nla lo"
    words = words_of(lyrics)
    order: list[int | None] = list(range(len(lyrics)))
    matrix = singing(order, len(lyrics), strength=0.3)
    for here, there in [(0, 12), (12, 0)]:
        for character in range(5):
            matrix[(here + character) * PACE : (here + character + 1) * PACE, there + character] += 0.25
    assert [sung.codes for sung in sung_words(matrix, words)] == codes_of(order, words)


def test_characters_that_are_looked_at_all_the_time_tell_nothing() -> None:
    words = words_of(LYRICS)
    matrix = singing([*ALL, *REST], len(LYRICS), strength=0.3)
    matrix[:, [0, 12, 25]] += 0.4
    assert [sung.codes for sung in sung_words(matrix, words)] == codes_of([*ALL, *REST], words)


@pytest.mark.parametrize("order", [[], [None] * 60], ids=["none", "everywhere"])
def test_without_a_word_that_gets_more_attention_nothing_is_sung(order: list[int | None]) -> None:
    matrix = singing(order, len(LYRICS)) if order else np.zeros((30, len(LYRICS)), np.float32)
    alignment = aligned(matrix)
    assert (alignment.sung, alignment.lines) == ((), ())
    assert (alignment.focus.share, alignment.focus.chance) == (0.0, 0.0)


def score(matrix: np.ndarray, path: np.ndarray) -> float:
    return float(matrix[np.arange(len(path)), path].sum())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_no_path_that_never_goes_back_is_better(codes: int, characters: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).integers(0, 4, (codes, characters)).astype(np.float32)  # with many ties
    path = monotone_path(matrix)
    assert (np.diff(path) >= 0).all()
    others = combinations_with_replacement(range(characters), codes)
    assert score(matrix, path) == max(score(matrix, np.array(other)) for other in others)


def test_words_are_those_that_were_given_and_characters_those_of_the_model() -> None:
    lyrics = "Été,\tça va?\r\n\n日本 ☃ a\\b"
    cleaned = LyricAlphabet(LabelRules.NAMES).clean(lyrics).text
    assert [(w.text, w.line, cleaned[w.first : w.stop]) for w in words_of(lyrics)] == [
        ("Été,", 0, "Ete,"),
        ("ça", 0, "ca"),
        ("va?", 0, "va?"),
        ("日本", 2, "Ri Ben "),
        ("☃", 2, ""),
        ("a", 2, "a"),
        ("b", 3, "b"),
    ]


def test_a_word_that_the_model_cannot_read_is_not_sung() -> None:
    words = words_of("a ☃ b")
    assert [bool(sung.codes) for sung in sung_words(singing([0, 1, 2, 3], 4), words)] == [True, False, True]


def aligned(matrix: np.ndarray, lyrics: str = LYRICS) -> SongAlignment:
    words = sung_words(matrix, words_of(lyrics))
    return SongAlignment(words, lyrics, lyrics, len(matrix), hop_length=80, sample_rate=800)


def test_lines_begin_and_end_with_their_words_that_are_sung() -> None:
    order: list[int | None] = [*ALL[4:14], *REST]
    alignment = aligned(singing(order, len(LYRICS)))
    first, second = alignment.lines
    assert (first.text, first.start, first.end) == ("one two", 0.0, 3 * PACE / 10)
    assert (second.text, second.start, second.end) == ("three four five", 4 * PACE / 10, 9 * PACE / 10)
    assert first.words == (("one", None), ("two", 0.0))
    assert alignment.seconds == len(order) * PACE / 10
    assert alignment.to_json()["words"][:2] == [
        {"text": "one", "line": 0, "start": None, "end": None, "attention": 0.0},
        {"text": "two", "line": 0, "start": 0.0, "end": 1.5, "attention": pytest.approx(0.9, abs=0.1)},
    ]


@pytest.mark.parametrize("strength", [0.3, 0.6, 0.9])
def test_how_much_attention_is_on_the_words(strength: float) -> None:
    focus = aligned(singing([*ALL], len(LYRICS), strength)).focus
    assert focus.chance == pytest.approx(4 / len(LYRICS), abs=0.05)
    assert focus.share > 0.8  # what is spread over all is every character's average
