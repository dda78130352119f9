"""Tables of songs: what is read from them, and broken rows, named by their line."""

from __future__ import annotations

import pytest

from jukebox_deploy.data.metadata import SongMetadata, read_table
from jukebox_deploy.errors import DataError


@pytest.mark.parametrize(
    ("row", "song"),
    [
        ('{"file": "a"}', SongMetadata()),
        ('{"file": "a", "artist": null, "genres": null, "lyrics": null}', SongMetadata()),
        ('{"file": "a", "genres": [" folk ", "", "hip hop"]}', SongMetadata(genres=("folk", "hip hop"))),
        ('{"file": "a", "genres": "folk; hip hop;"}', SongMetadata(genres=("folk", "hip hop"))),
        ('{"file": "a", "genre": "folk"}', SongMetadata(genres=("folk",))),
        ('{"file": "a", "genres": ["folk"], "genre": "other"}', SongMetadata(genres=("folk",))),
        ('{"file": "a", "artist": " Someone ", "lyrics": " la\\nla "}', SongMetadata("Someone", (), " la\nla ")),
    ],
)
def test_rows_of_json(row, song, tmp_path):
    path = tmp_path / "songs.jsonl"
    path.write_text(f"\ufeff{row}\n\n", encoding="utf-8")
    assert read_table(path).songs == {"a": song}


def test_rows_of_csv(tmp_path):
    path = tmp_path / "songs.CSV"
    lyrics = "la, la\r\nlo\n" * 30_000
    path.write_text(
        f'\ufefffile,genre,other,lyrics\r\n./a,"folk;dance",3,"{lyrics}"\r\n\r\nb,,,\r\n', "utf-8", newline=""
    )
    assert read_table(path).songs == {"a": SongMetadata("", ("folk", "dance"), lyrics), "b": SongMetadata()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "file", r"expected a table of songs as .jsonl or .csv, found .txt"),
        ("t.jsonl", '{"file": "a"}\n{"file"', "t.jsonl, line 2: not JSON"),
        ("t.jsonl", '["a"]', "line 1: expected an object, found list"),
        ("t.jsonl", '{"name": "a"}', "line 1: expected a column 'file' .* found name."),
        ("t.jsonl", '{"file": 3}', "line 1: file: expected text, found 3"),
        ("t.jsonl", '{"file": " "}', "line 1: the column 'file' is empty"),
        ("t.jsonl", '{"file": "a", "artist": 311}', "line 1: artist: expected text, found 311"),
        ("t.jsonl", '{"file": "a", "lyrics": ["la"]}', "line 1: lyrics: expected text"),
        ("t.jsonl", '{"file": "a", "genres": [3]}', "line 1: genres: expected a list of names"),
        ("t.jsonl", '{"file": "a", "genre": 3}', "line 1: genre: expected a list of names"),
        ("t.jsonl", '{"file": "a"}\n\n{"file": "./a"}', "line 3: a is already on line 1; remove one"),
        ("t.csv", "name,artist\na,b", "line 2: expected a column 'file'"),
        ("t.csv", "file,artist\na,b,c", "line 2: expected 2 cells, found 3"),
        ("t.csv", "file,artist\na,b\nc", "line 3: expected 2 cells, found 1"),
        ("t.csv", 'file,artist\na,"b"c', "line 2: not CSV"),
        ("t.csv", "file\na\na", "line 3: a is already on line 2"),
    ],
)
def test_broken_tables_are_named_by_line(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        read_table(path)
    assert str(path) in str(raised.value)


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "gone.csv")
    path = tmp_path / "latin.csv"
    path.write_bytes("file,artist\na,été".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_table(path)
