"""The options of `sample` for engines of TensorRT reach what opens them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.sample_job import EngineChoice


@pytest.mark.parametrize(
    ("arguments", "tensorrt", "cuda_graph"),
    [
        ([], None, None),
        (["--kernel-caches", "kernels"], TensorRtOptions(kernel_caches=Path("kernels")), None),
        (["--weight-budget", "1.5", "--cuda-graph"], TensorRtOptions(weight_budget=1_500_000_000), True),
        (["--weight-budget", "0"], TensorRtOptions(weight_budget=0), None),
        (["--host-code", "--no-cuda-graph"], TensorRtOptions(host_code=True), False),
        (["--lean-runtime", "lean.so"], TensorRtOptions(lean_runtime=Path("lean.so")), None),
    ],
)
def test_options(
    arguments: list[str], tensorrt: TensorRtOptions | None, cuda_graph: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[EngineChoice] = []

    def open_model(folder: Path, choice: EngineChoice, slots: int | None) -> None:
        seen.append(choice)
        raise EngineError("no engines here")

    monkeypatch.setattr("jukebox_deploy.cli.sample_command.open_model", open_model)
    result = CliRunner().invoke(cli, ["sample", "engines", "--out", "song", *arguments])
    assert "no engines here" in result.output
    assert [(choice.tensorrt, choice.cuda_graph) for choice in seen] == [(tensorrt, cuda_graph)]
