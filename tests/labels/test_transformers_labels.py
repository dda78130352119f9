"""Where `transformers` labels a song otherwise than the original does, and that ours does not (specification 16.4).

What ours has to give was computed by the original.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from jukebox_deploy.config import JukeboxConfig, LabelConfig, LabelRules, VQVAEConfig
from jukebox_deploy.labels.lyrics import LyricAlphabet
from jukebox_deploy.labels.rows import window_labels
from jukebox_deploy.runtime.plan import plan_song
from jukebox_deploy.runtime.song import SongLengths, SongRequest
from tests.labels.label_cases import (
    RATE,
    SLOTS,
    TOP_HOP_LENGTH,
    hugging_face_tokenizer,
    label_row,
    small_prior,
)

both_rules = pytest.mark.parametrize("rules", list(LabelRules), ids=str)
WINDOW = 512
SAMPLED = WINDOW * TOP_HOP_LENGTH


def planned_labels(rules, vocabulary, meta):
    """What a song of one window is told about itself when only its beginning is sampled."""
    config = JukeboxConfig("top only", VQVAEConfig(codebook_size=16), (small_prior(rules, WINDOW),))
    request = SongRequest(
        seconds=SAMPLED / RATE,
        artist=meta["artist"],
        genre=meta["genre"],
        lyrics=meta["lyrics"],
        total_seconds=meta["total_length"] / RATE,
        offset_seconds=meta["offset"] / RATE,
    )
    lengths = SongLengths(given=(0, 0, 0), totals=(16 * WINDOW, 4 * WINDOW, WINDOW))
    return plan_song(config, vocabulary, request, lengths, lowest_level=2)[2].song.labels


def their_row(rules, song, *, start, total_length, offset):
    """The label row of a window from `JukeboxPrior`, of which only what this takes is built."""
    transformers = pytest.importorskip("transformers", "4.57.6")
    genres = [*song.genres, *[-1] * (SLOTS[rules] - len(song.genres))]
    row = [song.total_length, song.offset, SAMPLED, song.artist, *genres, *song.lyric_tokens]
    prior = SimpleNamespace(
        sample_length=SAMPLED,
        raw_to_tokens=TOP_HOP_LENGTH,
        nb_relevant_lyric_tokens=40,
        metadata_embedding=SimpleNamespace(max_nb_genres=SLOTS[rules]),
    )
    prior.set_metadata_lyric_tokens = partial(transformers.JukeboxPrior.set_metadata_lyric_tokens, prior)
    (found,) = transformers.JukeboxPrior.get_metadata(prior, torch.tensor([row]), start, total_length, offset)
    return found.tolist()


@both_rules
def test_windows_keep_the_song_s_length_and_offset(rules, golden, vocabulary):
    """However little is sampled, a label row has the whole song's length and its offset (specification 16.4, point 4).

    Theirs puts the length that is sampled and another offset there, which is counted in codes. With
    the song's length and offset given in their place it agrees.
    """
    for case in golden[rules]["get_y"]:
        start = case["start"]
        for meta, expected in zip(golden[rules]["labels"]["metas"], case["y"], strict=True):
            song = planned_labels(rules, vocabulary, meta)
            labels = window_labels(small_prior(rules, WINDOW), RATE, TOP_HOP_LENGTH, song, start)
            assert label_row(labels, song, start, TOP_HOP_LENGTH, WINDOW) == expected
            # As their sampling calls it.
            found = their_row(rules, song, start=start, total_length=SAMPLED, offset=3)
            assert found[:2] == [SAMPLED, (start + 3) * TOP_HOP_LENGTH]
            assert meta["total_length"] == expected[0] != SAMPLED
            offset = meta["offset"] / TOP_HOP_LENGTH
            assert their_row(rules, song, start=start, total_length=expected[0], offset=offset) == expected


def their_tokens(golden, folder, rules, *, genre="rock", lyrics=""):
    """Genre ids and lyric tokens of a song by the tokenizer of `transformers`."""
    tokenizer = hugging_face_tokenizer(golden, folder, rules.value)
    (row,) = tokenizer("AC/DC", genre, lyrics)["input_ids"][0].tolist()
    first_lyric = 4 + SLOTS[rules]
    return [genre for genre in row[4:first_lyric] if genre >= 0], row[first_lyric:]


@pytest.mark.parametrize(("rules", "their_plus"), [(LabelRules.WORDS, []), (LabelRules.NAMES, [0])])
def test_plus_is_a_lyric_character_of_v2_only(rules, their_plus, golden, tmp_path):
    """`+` is a character of v2 and left out in v3 (specification 16.4, point 13).

    Theirs leaves it out in v2 and makes it the unknown character in v3.
    """
    alphabet = LyricAlphabet(rules)
    (case,) = (case for case in golden[rules]["lyrics"] if "+" in case["text"])
    before, after = (list(alphabet.encode(alphabet.clean(part).text)) for part in case["text"].split("+"))
    plus = [70] if rules is LabelRules.WORDS else []
    assert list(alphabet.encode(alphabet.clean(case["text"]).text)) == case["tokens"] == before + plus + after
    assert their_tokens(golden, tmp_path, rules, lyrics=case["text"])[1] == before + their_plus + after


@both_rules
@pytest.mark.parametrize(
    ("first_word", "theirs"),
    [
        ("café", "cafe naive  quoted x  end"),  # dashes, curly quotes and dots
        ("Straße", "Strae Angstrom odz 100 1 home x y z w "),
        ("Привет", " "),
    ],
)
def test_characters_beyond_ascii_are_transliterated(rules, first_word, theirs, golden, tmp_path):
    """Lyrics are transliterated to ASCII (specification 16.4, point 14).

    Theirs takes off accents and drops whatever is still not ASCII.
    """
    alphabet = LyricAlphabet(rules)
    (case,) = (case for case in golden[rules]["lyrics"] if case["text"].startswith(first_word))
    assert list(alphabet.encode(alphabet.clean(case["text"]).text)) == case["tokens"]
    assert their_tokens(golden, tmp_path, rules, lyrics=case["text"])[1] == list(alphabet.encode(theirs))


@both_rules
def test_ligatures_are_spelled_out(rules, golden, tmp_path):
    """A ligature is transliterated to its letters; theirs drops it (specification 16.4, point 14)."""
    alphabet, text = LyricAlphabet(rules), "\N{LATIN SMALL LIGATURE FI}re"
    assert alphabet.clean(text).text == "fire"
    assert their_tokens(golden, tmp_path, rules, lyrics=text)[1] == list(alphabet.encode("re"))


@pytest.mark.parametrize("genre", ["Blues Rock", "hip-hop", "R&B", "blues rock country hip hop"])
def test_genres_of_v2_are_bags_of_words(genre, golden, vocabulary, tmp_path):
    """A genre is normalised and then split into words (specification 16.4, point 15).

    Theirs splits before it normalises, so several words become one that it does not know.
    """
    expected = dict(golden["v2"]["genres"])[genre]
    assert len(expected) > 1
    assert min(expected) > 0
    labels = LabelConfig(LabelRules.WORDS, artists=9, genres=8, genre_slots=5)
    assert list(vocabulary.for_model(labels).genres(genre).ids) == expected
    assert their_tokens(golden, tmp_path, LabelRules.WORDS, genre=genre)[0] == [0]
