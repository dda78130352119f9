"""What an export says to do next works as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from jukebox_deploy.cli.export_command import next_commands
from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import EngineBundle


class TestNextCommands:
    @pytest.mark.parametrize(
        ("without", "options"),
        [
            ((), "--seconds 1 --out song"),
            (("step_0",), "--seconds 1 --lowest-level 1 --out song"),
            (("vqvae_decode_0", "vqvae_encode_2"), "--seconds 1 --lowest-level 1 --out song"),
            (("condition_1",), "--seconds 1 --lowest-level 2 --out song"),
        ],
    )
    def test_songs_can_be_made_as_they_say(
        self, tiny_engine_bundle: EngineBundle, without: Sequence[str], options: str
    ):
        manifest = tiny_engine_bundle.manifest
        graphs = {name: graph for name, graph in manifest.graphs.items() if name not in without}
        sample, build = next_commands(Path("my graphs"), replace(manifest, graphs=graphs))
        assert sample == f"jukebox-deploy sample 'my graphs' {options}"
        assert build == "jukebox-deploy build 'my graphs' --out engines"

    @pytest.mark.parametrize("missing", ["prefill_2", "vqvae_decode"])
    def test_graphs_that_make_no_song_are_only_to_be_built(self, tiny_engine_bundle: EngineBundle, missing: str):
        manifest = tiny_engine_bundle.manifest
        graphs = {name: graph for name, graph in manifest.graphs.items() if not name.startswith(missing)}
        (build,) = next_commands(Path("g"), replace(manifest, graphs=graphs))
        assert build.startswith("jukebox-deploy build")

    def test_the_first_one_works_as_it_stands(
        self, tiny_engine_bundle: EngineBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        first = next_commands(tiny_engine_bundle.folder, tiny_engine_bundle.manifest)[0]
        result = CliRunner().invoke(cli, shlex.split(first)[1:])
        assert result.exit_code == 0, result.output
        assert (tmp_path / "song" / "level_0.wav").is_file()
