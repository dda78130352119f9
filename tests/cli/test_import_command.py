from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.random_bundle import write_random_openai_checkpoint
from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.main import cli
from jukebox_deploy.config import LabelRules
from jukebox_deploy.errors import JukeboxError


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def openai_files(tmp_path_factory):
    return write_random_openai_checkpoint("tiny", tmp_path_factory.mktemp("openai") / "files")


@pytest.fixture(scope="session")
def bundle(openai_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "tiny"
    assert run("import", "openai", *openai_files, "--out", out, "--preset", "tiny").exit_code == 0
    return out


@pytest.fixture
def id_lists(tmp_path):
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / "v3_artist_ids.txt").write_text("unknown;0\nsomebody;1\n")
    (folder / "v3_genre_ids.txt").write_text("unknown;0\njazz;1\n")
    return folder


def assert_refused(result, out: Path, *words: str):
    """One message, no traceback, and nothing written, not even under another name."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


class TestRoundTrip:
    def test_openai_and_back(self, openai_files, bundle, tmp_path):
        result = run("export-weights", bundle, "--layout", "openai", "--out", tmp_path / "back")
        assert result.exit_code == 0
        assert result.stdout.split() == [str(tmp_path / "back" / file.name) for file in openai_files]
        for file in openai_files:
            before, after = (
                torch.load(path, weights_only=True)["model"] for path in (file, tmp_path / "back" / file.name)
            )
            assert list(before) == list(after)
            assert all(torch.equal(before[name], after[name]) for name in before)

    def test_hugging_face_and_back(self, bundle, tmp_path):
        assert run("export-weights", bundle, "--layout", "hf", "--out", tmp_path / "hf").exit_code == 0
        assert run("import", "hf", tmp_path / "hf", "--out", tmp_path / "again").exit_code == 0
        first, second = CheckpointBundle.open(bundle), CheckpointBundle.open(tmp_path / "again")
        assert second.config == first.config
        for component in first.components:
            before, after = first.tensors(component), second.tensors(component)
            assert all(torch.equal(before.load(name), after.load(name)) for name in before.infos)


class TestVocabulary:
    def test_openai_lists(self, openai_files, id_lists, tmp_path):
        out = tmp_path / "out"
        result = run("import", "openai", *openai_files, "--out", out, "--vocabulary", id_lists)
        assert result.exit_code == 0
        assert "2 artists, 2 genres" in result.stdout
        assert CheckpointBundle.open(out).vocabulary.lists[LabelRules.NAMES].artists == {"unknown": 0, "somebody": 1}

    def test_lists_in_a_hugging_face_folder_are_found(self, bundle, tmp_path):
        folder = tmp_path / "hf"
        assert run("export-weights", bundle, "--layout", "hf", "--out", folder).exit_code == 0
        (folder / "artists.json").write_text(json.dumps({"somebody": 1}))
        (folder / "genres.json").write_text(json.dumps({"jazz": 2}))
        assert run("import", "hf", folder, "--out", tmp_path / "out").exit_code == 0
        assert CheckpointBundle.open(tmp_path / "out").vocabulary.lists[LabelRules.NAMES].genres == {"jazz": 2}

    def test_without_lists_it_says_so(self, openai_files, tmp_path):
        result = run("import", "openai", *openai_files, "--out", tmp_path / "out", "--preset", "tiny")
        assert "--vocabulary" in result.stdout


class TestBadInput:
    def test_missing_file(self, tmp_path):
        out = tmp_path / "out"
        result = run("import", "openai", tmp_path / "vqvae.pth.tar", "--out", out)
        assert_refused(result, out, "vqvae.pth.tar", "no such file")

    @pytest.mark.parametrize("keep", [0, 1, 100, -1])
    def test_truncated_file(self, openai_files, tmp_path, keep):
        broken, out = tmp_path / "vqvae.pth.tar", tmp_path / "out"
        broken.write_bytes(openai_files[0].read_bytes()[:keep])
        assert_refused(run("import", "openai", broken, "--out", out, "--preset", "tiny"), out, "vqvae.pth.tar")

    def test_file_that_asks_to_run_code(self, tmp_path):
        hostile, out = tmp_path / "vqvae.pth.tar", tmp_path / "out"
        torch.save({"model": {"x": Path("/")}}, hostile)
        assert_refused(run("import", "openai", hostile, "--out", out), out, "vqvae.pth.tar")

    def test_wrong_preset(self, openai_files, tmp_path):
        out = tmp_path / "out"
        result = run("import", "openai", *openai_files, "--out", out, "--preset", "small")
        assert_refused(result, out, "small", "tiny")

    def test_unknown_preset(self, openai_files, tmp_path):
        out = tmp_path / "out"
        result = run("import", "openai", *openai_files, "--out", out, "--preset", "tinny")
        assert_refused(result, out, "Did you mean tiny?")

    def test_folder_without_a_checkpoint(self, tmp_path):
        out = tmp_path / "out"
        assert_refused(run("import", "hf", tmp_path, "--out", out), out, str(tmp_path))

    def test_folder_without_lists_of_names(self, openai_files, tmp_path):
        out = tmp_path / "out"
        result = run("import", "openai", *openai_files, "--out", out, "--vocabulary", tmp_path)
        assert_refused(result, out, str(tmp_path), "v3_artist_ids.txt")

    def test_lists_of_another_model(self, openai_files, id_lists, tmp_path):
        (id_lists / "v3_artist_ids.txt").write_text("unknown;0\nsomebody;7897\n")
        out = tmp_path / "out"
        result = run("import", "openai", *openai_files, "--out", out, "--vocabulary", id_lists)
        assert_refused(result, out, "7897")

    def test_half_of_the_lists(self, openai_files, id_lists, tmp_path):
        (id_lists / "v3_genre_ids.txt").unlink()
        out = tmp_path / "out"
        result = run("import", "openai", *openai_files, "--out", out, "--vocabulary", id_lists)
        assert_refused(result, out, "v3_genre_ids.txt")

    def test_export_weights_of_no_bundle(self, tmp_path):
        out = tmp_path / "out"
        assert_refused(run("export-weights", tmp_path, "--layout", "hf", "--out", out), out, "config.json")

    @pytest.mark.parametrize("arguments", [["openai", "--out", "x"], ["openai", "x"], ["hf", "--out", "x"], ["who"]])
    def test_usage_errors(self, arguments, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert run("import", *arguments).exit_code == 2
        assert not list(tmp_path.iterdir())


class TestForce:
    def test_a_folder_that_is_taken_is_kept(self, openai_files, bundle):
        before = CheckpointBundle.open(bundle).fingerprint()
        result = run("import", "openai", *openai_files, "--out", bundle, "--preset", "tiny")
        assert result.exit_code == 1
        assert CheckpointBundle.open(bundle).fingerprint() == before

    def test_replaces_a_bundle(self, openai_files, id_lists, tmp_path):
        out = tmp_path / "out"
        arguments = ["import", "openai", *openai_files, "--out", out, "--preset", "tiny"]
        assert run(*arguments).exit_code == 0
        assert run(*arguments, "--force", "--vocabulary", id_lists).exit_code == 0
        assert CheckpointBundle.open(out).vocabulary.lists
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ids", "out"]

    def test_puts_the_old_one_back_after_an_error(self, openai_files, tmp_path):
        out = tmp_path / "out"
        assert run("import", "openai", *openai_files, "--out", out, "--preset", "tiny").exit_code == 0
        assert run("import", "openai", *openai_files, "--out", out, "--preset", "small", "--force").exit_code == 1
        assert CheckpointBundle.open(out).config.name == "tiny"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_never_replaces_what_is_not_ours(self, openai_files, tmp_path):
        (tmp_path / "music.wav").write_text("precious")
        result = run("import", "openai", *openai_files, "--out", tmp_path, "--preset", "tiny", "--force")
        assert result.exit_code == 1
        assert (tmp_path / "music.wav").read_text() == "precious"

    def test_never_removes_its_own_input(self, tmp_path):
        (tmp_path / "input").touch()
        with (
            pytest.raises(JukeboxError, match="holds the input"),
            replacing(tmp_path, force=True, is_ours=lambda _: True, inputs=[tmp_path / "input"]),
        ):
            pass
        assert (tmp_path / "input").exists()
