import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.cli.export_command import _listener, command
from jukebox_deploy.cli.inspect_command import command as inspect
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.errors import CheckpointError, ExportError, JukeboxError
from jukebox_deploy.jobs.export_job import ExportEvent
from tests.source_tree import REPOSITORY


def _run(*arguments: str):
    return CliRunner().invoke(command, arguments)


def test_a_graph_is_exported_with_a_report(tiny_checkpoint: CheckpointBundle, tmp_path: Path):
    out = tmp_path / "onnx"
    arguments = [
        str(tiny_checkpoint.folder),
        "--out",
        str(out),
        "--graphs",
        "condition_2",
        "--batch",
        "1,2,3",
        "--json",
    ]
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["graphs"] == ["condition_2"]
    assert [run["sizes"]["B"] for run in document["parity"]["graphs"]["condition_2"]["runs"]] == [1]
    assert sorted(path.name for path in out.iterdir()) == ["condition_2.onnx", "manifest.json", "prior_2.weights"]
    again = _run(*arguments)
    assert isinstance(again.exception, JukeboxError)  # main turns it into a sentence
    assert "not empty" in str(again.exception)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_an_export_does_is_said_before_it_is_done(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, processes: str
):
    """Results on standard output; on standard error how far it is, from the start and without control characters."""
    arguments = ["--graphs", "condition_0,condition_2", "--processes", processes, "--tensorrt-check", "never"]
    result = _run(str(tiny_checkpoint.folder), "--out", str(tmp_path / "onnx"), *arguments)
    assert result.exit_code == 0, result.output
    told = result.stderr.splitlines()
    assert re.fullmatch(
        r"exporting: 0 of 2 graphs exported, 0:00:\d\d so far, tracing condition_0, condition_2", told[0]
    )
    assert re.fullmatch(r"exporting: 2 of 2 graphs exported, in 0:00:\d\d", told[-1])
    assert all(line.startswith("exporting: ") for line in told)
    assert "traced  condition_2" in result.stdout
    assert re.search(r"validated  condition_2 +B=1: relative error \d", result.stdout)
    assert re.search(r"[^\x20-\x7e\n]", result.output) is None


def test_lines_of_an_export_stand_above_its_bar(monkeypatch: pytest.MonkeyPatch):
    """A terminal redirects `sys.stdout`; click's own choice of a stream would write past that into the bar."""

    class Redirected(io.TextIOWrapper):
        encoding = None  # type: ignore[assignment]  # as that of a redirected stream is

    stream = Redirected(io.BytesIO(), encoding="utf-8")
    written: list[str] = []
    monkeypatch.setattr(stream, "write", written.append)
    monkeypatch.setattr(sys, "stdout", stream)
    _listener(as_json=False)(ExportEvent("trace", "step_0"))
    assert "".join(written).split() == ["0.0", "s", "traced", "step_0"]


def test_integer_weights_and_what_they_cost(tiny_checkpoint: CheckpointBundle, tmp_path: Path):
    out = tmp_path / "onnx"
    arguments = ["--graphs", "step_0", "--weights", "int4", "--calibrate", "none", "--keep", "layers.2"]
    result = _run(str(tiny_checkpoint.folder), "--out", str(out), *arguments, "--tensorrt-check", "never")
    assert result.exit_code == 0, result.output
    assert "2 graphs in fp32 with int4 weights" in result.output
    line = "prior 0: 6 int4 weights, 4 kept, 2 without whole groups of inputs; calibration none; KL "
    assert line in result.output
    shown = CliRunner().invoke(inspect, [str(out)])
    words = " ".join(shown.output.split())  # long lines are broken
    assert line in words
    assert "fp32 with int4 weights" in words
    described = json.loads(CliRunner().invoke(inspect, [str(out), "--json"]).output)
    assert described["linear_weights"] == "int4"
    assert described["quantised_weights"]["0"]["quality"]["limit"] == 0.05


def test_the_quality_of_weights_is_left_unmeasured_on_request(tiny_checkpoint: CheckpointBundle, tmp_path: Path):
    out = tmp_path / "onnx"
    arguments = ["--graphs", "step_0", "--weights", "int8", "--no-validate", "--tensorrt-check", "never", "--json"]
    result = _run(str(tiny_checkpoint.folder), "--out", str(out), *arguments, "--no-measure-quality")
    assert result.exit_code == 0, result.output
    assert "measuring" not in result.stderr
    assert "measured" not in result.stderr
    assert json.loads(result.stdout)["quantised_weights"]["0"]["quality"] is None
    assert "quality not measured" in " ".join(CliRunner().invoke(inspect, [str(out)]).output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "layers.0"], "add --weights int8"),
        (["--max-kl", "0.1"], "add --weights int8"),
        (["--calibrate", "self"], "add --weights int8"),
        (["--no-measure-quality"], "add --weights int8"),
        (["--weights", "int8", "--no-measure-quality", "--max-kl", "0.1"], "a limit or no measurement"),
        (["--weights", "int4", "--calibrate", "nowhere"], "nor a folder with songs"),
        (["--weights", "int8", "--keep", "layers.7.mpl"], "Nearest are"),
    ],
)
def test_choices_about_weights_that_cannot_be(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, arguments: list[str], message: str
):
    result = _run(str(tiny_checkpoint.folder), "--out", str(tmp_path / "onnx"), *arguments)
    assert isinstance(result.exception, JukeboxError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_measured_need_logits(tiny_checkpoint: CheckpointBundle, tmp_path: Path):
    out = tmp_path / "onnx"
    arguments = [str(tiny_checkpoint.folder), "--out", str(out), "--graphs", "step_0", "--weights", "int8"]
    refused = _run(*arguments, "--no-logits")
    assert refused.exit_code == 2
    assert "--no-logits: what int8 weights cost is measured by the logits" in " ".join(refused.output.split())
    unmeasured = ["--no-measure-quality", "--no-validate", "--tensorrt-check", "never"]
    result = _run(*arguments, "--no-logits", *unmeasured)
    assert result.exit_code == 0, result.output
    assert "logits" not in [tensor.name for tensor in open_bundle(out).graphs["step_0"].tensors]


@pytest.mark.parametrize("batch", ["0", "4,2,1", "1,2", "many", "-1"])
def test_impossible_batches_are_refused(batch: str, tmp_path: Path):
    result = _run(str(tmp_path), "--out", str(tmp_path / "onnx"), f"--batch={batch}")
    assert result.exit_code == 2
    assert "--batch" in result.output


def test_what_is_no_checkpoint_bundle_is_refused(tmp_path: Path):
    result = _run(str(tmp_path), "--out", str(tmp_path / "onnx"))
    assert isinstance(result.exception, CheckpointError)
    assert "no checkpoint bundle" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_unknown_graphs_are_named(tiny_checkpoint: CheckpointBundle, tmp_path: Path):
    result = _run(str(tiny_checkpoint.folder), "--out", str(tmp_path / "onnx"), "--graphs", "step_7")
    assert isinstance(result.exception, ExportError)
    assert "step_7" in str(result.exception)
    assert not list(tmp_path.iterdir())


def _children(process: int) -> list[int]:
    """Of the main thread."""
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at the processes of a system with /proc")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_ended_leaves_nothing(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, by: signal.Signals
) -> None:
    arguments = ["export", str(tiny_checkpoint.folder), "--out", str(tmp_path / "onnx"), "--processes", "2"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in the background
    try:
        process = subprocess.Popen([sys.executable, "-m", "jukebox_deploy.cli.main", *arguments], cwd=REPOSITORY)
    finally:
        signal.signal(signal.SIGINT, before)
    while len(children := _children(process.pid)) < 3:  # both workers and the tracker of resources
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(2)  # so that the workers are in the midst of it
    process.send_signal(by)
    assert process.wait(timeout=15) == (-by if by == signal.SIGKILL else 128 + by)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(list(tmp_path.iterdir())) == (by == signal.SIGKILL)
    again = _run(str(tiny_checkpoint.folder), "--out", str(tmp_path / "onnx"), "--graphs", "condition_0")
    assert again.exit_code == 0, again.output
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
