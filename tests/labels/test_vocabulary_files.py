import json

import pytest

from jukebox_deploy.config import LabelConfig, LabelRules
from jukebox_deploy.errors import LabelError
from jukebox_deploy.labels.vocabulary_files import read_openai_list, read_vocabulary
from tests.labels.label_cases import hugging_face_lists, hugging_face_tokenizer


def test_source_tree_is_enough(openai_folder, vocabulary):
    assert read_vocabulary(openai_folder.parents[2]) == vocabulary


@pytest.mark.parametrize("missing", ["artist", "genre"])
def test_one_rule_set_may_be_missing_but_not_half_of_one(missing, openai_folder):
    for kind in ("artist", "genre"):
        (openai_folder / f"v3_{kind}_ids.txt").unlink()
    assert list(read_vocabulary(openai_folder).lists) == [LabelRules.WORDS]
    (openai_folder / f"v2_{missing}_ids.txt").unlink()
    with pytest.raises(LabelError, match=rf"v2_{missing}_ids\.txt: this list is missing"):
        read_vocabulary(openai_folder)


def test_list_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffBÉ;1\r\nx;y;2\r\n\r\n;0\nbé;3".encode())
    assert read_openai_list(path) == {"bé": 3, "x;y": 2, "": 0}


@pytest.mark.parametrize("line", ["name", "name;", "name;x", "name;-1", "name;1.5"])
def test_broken_lines_are_named(line, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"good;1\n{line}\n")
    with pytest.raises(LabelError, match=r"list\.txt, line 2: expected name;id"):
        read_openai_list(path)


def test_not_text(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="not UTF-8"):
        read_openai_list(path)


@pytest.mark.parametrize("entry", ["", "artists.json", "genres.json"])
def test_hugging_face_lists(entry, golden, vocabulary, tmp_path):
    for kind in ("artist", "genre"):
        text = json.dumps(hugging_face_lists(golden, kind), ensure_ascii=False)
        (tmp_path / f"{kind}s.json").write_text(text, encoding="utf-8")
    (tmp_path / "vocab.json").write_text("not looked at")
    assert read_vocabulary(tmp_path / entry) == vocabulary


@pytest.mark.parametrize("keys", [("artists", "genres"), ("artists_encoder", "genres_encoder")])
def test_hugging_face_combined_file(keys, golden, vocabulary, tmp_path):
    data = {key: hugging_face_lists(golden, kind) for key, kind in zip(keys, ("artist", "genre"), strict=True)}
    (tmp_path / "vocab.json").write_text(json.dumps(data))
    assert read_vocabulary(tmp_path / "vocab.json") == vocabulary


def test_hugging_face_tokenizer_agrees(golden, vocabulary, tmp_path):
    tokenizer = hugging_face_tokenizer(golden, tmp_path, "v3", "v2")
    name, words = (
        read_vocabulary(tmp_path).for_model(LabelConfig(rules, 10, 8, 5))
        for rules in (LabelRules.NAMES, LabelRules.WORDS)
    )
    artist_ids, genre_ids, _ = tokenizer._convert_token_to_id(*tokenizer.tokenize(["AC/DC"] * 2, ["rock"] * 2, ""))
    assert artist_ids == [name.artist("AC/DC").ids[0], words.artist("AC/DC").ids[0]]
    assert [row[0] for row in genre_ids] == [name.genres("rock").ids[0], words.genres("rock").ids[0]]


def test_broken_hugging_face_files(tmp_path):
    (tmp_path / "artists.json").write_text("{")
    (tmp_path / "genres.json").write_text("{}")
    with pytest.raises(LabelError, match=r"artists\.json: not JSON"):
        read_vocabulary(tmp_path)
    (tmp_path / "artists.json").unlink()
    with pytest.raises(LabelError, match=r"artists\.json: this list is missing"):
        read_vocabulary(tmp_path)
    (tmp_path / "genres.json").unlink()
    (tmp_path / "vocab.json").write_text('{"a": 1}')
    with pytest.raises(LabelError, match=r"vocab\.json: expected a list 'artists'"):
        read_vocabulary(tmp_path)


def test_no_lists_at_all(tmp_path):
    with pytest.raises(LabelError, match="no lists of artists and genres here"):
        read_vocabulary(tmp_path)
