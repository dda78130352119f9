import json
from dataclasses import replace

import pytest

from jukebox_deploy.config import LabelConfig, LabelRules
from jukebox_deploy.errors import LabelError
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary, normalise

LABELS = {
    LabelRules.WORDS: LabelConfig(LabelRules.WORDS, artists=10, genres=8, genre_slots=5),
    LabelRules.NAMES: LabelConfig(LabelRules.NAMES, artists=10, genres=8, genre_slots=1),
}
both_rules = pytest.mark.parametrize("rules", list(LabelRules), ids=str)


@both_rules
def test_names_give_the_original_ids(rules, vocabulary, golden):
    names = vocabulary.for_model(LABELS[rules])
    for name, number in golden[rules]["artists"]:
        assert names.artist(name).ids == (number,), name
    for text, numbers in golden[rules]["genres"]:
        assert names.genres(text).ids == tuple(numbers), text


@both_rules
def test_lists_equal_the_original(rules, vocabulary, golden):
    assert vocabulary.lists[rules].artists == golden[rules]["artist_ids"]
    assert vocabulary.lists[rules].genres == golden[rules]["genre_ids"]


def test_normalise(golden):
    for name, expected in golden["v2"]["norm"]:
        assert normalise(name) == expected


def test_unknown_names_warn_and_suggest(vocabulary):
    names = vocabulary.for_model(LABELS[LabelRules.NAMES])
    match = names.artist("The Blue Lamp")
    assert match.ids == (0,)
    assert match.unknown[0].close == ("the blue lamps",)
    assert "'The Blue Lamp'" in str(match.unknown[0])
    assert "'the blue lamps'" in str(match.unknown[0])


def test_each_unknown_word_of_a_genre_warns(vocabulary):
    match = vocabulary.for_model(LABELS[LabelRules.WORDS]).genres("Martian rock Polka")
    assert match.ids == (0, 1, 0)
    assert [unknown.name for unknown in match.unknown] == ["martian", "polka"]


def test_suggestions_leave_out_names_that_mean_unknown(vocabulary):
    match = vocabulary.for_model(LABELS[LabelRules.WORDS]).artist("variouss")
    assert match.unknown[0].close == ()


@both_rules
@pytest.mark.parametrize("name", ["", " ", "unknown", "Unknown"])
def test_choosing_unknown_needs_no_warning(rules, name, vocabulary):
    for names in (vocabulary.for_model(LABELS[rules]), Vocabulary().for_model(LABELS[rules])):
        assert names.artist(name).unknown == ()
        assert names.genres(name).unknown == ()
        assert names.artist(name).ids == (0,)


@both_rules
def test_numbers_need_no_list(rules, vocabulary):
    for names in (vocabulary.for_model(LABELS[rules]), Vocabulary().for_model(LABELS[rules])):
        assert names.artist("#9").ids == (9,)
        assert names.genres(" #7 ").ids == (7,)
        with pytest.raises(LabelError, match="no artist #10: the model has #0 to #9"):
            names.artist("#10")
        with pytest.raises(LabelError, match="no genre #8"):
            names.genres("#8")
    with pytest.raises(LabelError, match="one artist"):
        names.artist("#1 #2")


@both_rules
def test_a_number_without_a_name_warns_where_others_have_names(rules):
    vocabulary = Vocabulary({rules: NameLists({"unknown": 0, "abba": 1}, {"pop": 2})})
    names = vocabulary.for_model(LABELS[rules])
    artist, genre = map(str, names.unnamed(7, (2, 3)))
    assert "No artist of the model has the number #7" in artist
    assert "No genre of the model has the number #3" in genre
    assert names.unnamed(1, (0, 2)) == names.unnamed(0, ()) == ()
    assert Vocabulary().for_model(LABELS[rules]).unnamed(7, (3,)) == ()


def test_several_genre_numbers():
    words, name = (Vocabulary().for_model(LABELS[rules]) for rules in LabelRules)
    assert words.genres("#1, #2 #3").ids == (1, 2, 3)
    with pytest.raises(LabelError, match="2 parts, the model takes at most 1"):
        name.genres("#1 #2")


def test_without_a_list_the_warning_says_so():
    match = Vocabulary().for_model(LABELS[LabelRules.NAMES]).artist("AC/DC")
    assert match.ids == (0,)
    assert "no list of artist names" in str(match.unknown[0])


def test_too_many_genre_words(vocabulary):
    names = vocabulary.for_model(LABELS[LabelRules.WORDS])
    assert len(names.genres("blues rock country hip hop").ids) == 5
    with pytest.raises(LabelError, match="6 parts, the model takes at most 5"):
        names.genres("blues rock country hip hop r")


def test_lists_of_another_model_are_refused(vocabulary):
    with pytest.raises(LabelError, match=r"ids 0 to 3, but the list has 2 higher ones, such as 4 for 'b_yonce_k'"):
        vocabulary.for_model(replace(LABELS[LabelRules.WORDS], artists=4))
    with pytest.raises(LabelError, match="list of genre names does not belong"):
        vocabulary.for_model(replace(LABELS[LabelRules.NAMES], genres=4))


def test_json_round_trip(vocabulary):
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary
    assert Vocabulary.from_json({}) == Vocabulary()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected an object, found list"),
        ({"v4": {}}, "'v4' is not one of"),
        ({"v2": {"artists": {}}}, r"vocabulary\.v2: expected artists and genres"),
        ({"v2": {"artists": {"a": "1"}, "genres": {}}}, r"vocabulary\.v2\.artists: the id of 'a'"),
        ({"v2": {"artists": {}, "genres": {"a": -1}}}, r"vocabulary\.v2\.genres: the id of 'a'"),
        ({"v2": {"artists": {}, "genres": {"a": True}}}, "the id of 'a'"),
    ],
)
def test_broken_json_is_refused(data, message):
    with pytest.raises(LabelError, match=message):
        Vocabulary.from_json(data)
