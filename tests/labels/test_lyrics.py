import sys
import warnings

import pytest

from jukebox_deploy.config import LabelRules, LyricsConfig
from jukebox_deploy.errors import LabelError
from jukebox_deploy.labels.lyrics import LyricAlphabet, lyric_window

both_rules = pytest.mark.parametrize("rules", list(LabelRules), ids=str)


@both_rules
def test_characters_equal_the_original(rules, golden):
    alphabet = LyricAlphabet(rules)
    assert alphabet.characters == golden[rules]["characters"]
    assert alphabet.size == golden[rules]["n_vocab"]


@both_rules
def test_text_and_tokens_equal_the_original(rules, golden):
    alphabet = LyricAlphabet(rules)
    for case in golden[rules]["lyrics"]:
        text = alphabet.clean(case["text"]).text
        assert text == case["clean"]
        assert list(alphabet.encode(text)) == case["tokens"]


def test_clean_reports_what_became_of_characters():
    cleaned = LyricAlphabet(LabelRules.NAMES).clean("é+ß #\\+\r\n世")
    assert cleaned.text == "ess \n\nShi "
    assert cleaned.replaced == {"é": "e", "ß": "ss", "\\": "\n", "世": "Shi "}
    assert cleaned.dropped == {"+": 2, "#": 1}
    assert cleaned.warnings() == (
        "The lyrics have characters that the model does not know; they are left out: '+' (2x), '#' (1x).",
    )
    assert cleaned.spellings() == (
        "The lyrics have characters that the model does not know; they are transliterated: '世' as 'Shi '.",
    )


def test_of_many_characters_the_first_are_named():
    (warning,) = LyricAlphabet(LabelRules.NAMES).clean("".join(map(chr, range(0xAC00, 0xAC00 + 30)))).spellings()
    assert warning.count(" as ") == 20
    assert warning.endswith("and 10 more.")


@pytest.mark.parametrize("text", ["naïve Ærø", "don\u2019t \u2014 \u201cstop\u201d …", "a\xa0b", "une\r\ndeux\\trois"])
def test_what_reads_the_same_needs_no_warning(text):
    cleaned = LyricAlphabet(LabelRules.NAMES).clean(text)
    assert cleaned.warnings() == cleaned.spellings() == ()


def test_clean_text_needs_no_warning():
    cleaned = LyricAlphabet(LabelRules.WORDS).clean("Plain + text.\r\n")
    assert (cleaned.text, cleaned.replaced, cleaned.warnings()) == ("Plain + text.\n", {}, ())


def test_characters_without_transliteration_are_dropped_quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cleaned = LyricAlphabet(LabelRules.WORDS).clean("a\ud800\U0001f3b5b")
    assert cleaned.text == "ab"
    assert set(cleaned.dropped) == {"\ud800", "\U0001f3b5"}


def test_encode_refuses_unclean_text():
    with pytest.raises(LabelError, match=r"'\+'"):
        LyricAlphabet(LabelRules.NAMES).encode("a+b")


def test_alphabet_of_a_model():
    assert LyricAlphabet.of(LyricsConfig(512, 80)).rules is LabelRules.WORDS
    assert LyricAlphabet.of(LyricsConfig(384, 79)).rules is LabelRules.NAMES
    with pytest.raises(LabelError, match="30 lyric characters"):
        LyricAlphabet.of(LyricsConfig(24, 30))


def test_windows_equal_the_original(golden):
    for case in golden["lyric_window"]:
        window = lyric_window(
            case["full_tokens"],
            case["n_tokens"],
            total_length=case["total_length"],
            offset=case["offset"],
            sample_length=case["duration"],
        )
        assert window.tokens.tolist() == case["tokens_tensor_args"]
        assert window.indices.tolist() == case["indices_tensor_args"]


def test_middle_is_computed_in_single_precision(golden):
    for case in golden["lyric_window_float32"]:
        window = lyric_window(
            range(case["full_len"]),
            case["n_tokens"],
            total_length=case["total_length"],
            offset=case["offset"],
            sample_length=case["duration"],
        )
        assert window.indices[0] == case["first_index_tensor_args"] != case["first_index"]
        assert (window.tokens == window.indices).all()


def test_lyrics_of_exactly_one_window_are_not_padded():
    window = lyric_window([5, 6, 7, 8], 4, total_length=100, offset=99, sample_length=50)
    assert window.tokens.tolist() == [5, 6, 7, 8]


def test_no_lyrics_are_padding():
    window = lyric_window([], 4, total_length=100, offset=0, sample_length=50)
    assert window.tokens.tolist() == [0] * 4
    assert window.indices.tolist() == [-1] * 4


@pytest.mark.parametrize("offset", [-1, 100])
def test_windows_outside_the_song_are_refused(offset):
    with pytest.raises(LabelError, match="outside the song of 100 samples"):
        lyric_window([1, 2], 2, total_length=100, offset=offset, sample_length=10)


def test_ascii_lyrics_need_no_transliteration_and_others_say_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "unidecode", None)  # as if it were not installed
    alphabet = LyricAlphabet(LabelRules.NAMES)
    assert alphabet.clean("La la, 12!\n").text == "La la, 12!\n"
    with pytest.raises(LabelError, match="pip install unidecode"):
        alphabet.clean("café")
