"""Measuring builds: what is made, what is watched, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jukebox_deploy.benchmarks import engine_builds, process_memory
from jukebox_deploy.benchmarks.engine_builds import BuildCase, main, measure, stored_bytes
from jukebox_deploy.benchmarks.process_memory import memory_field, run_watched
from jukebox_deploy.checkpoints.random_bundle import RandomCheckpoint, write_random_bundle
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.errors import EngineError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

RESULTS = Path(engine_builds.__file__).parent / "results"
CASE = BuildCase("tiny", 0, LinearWeights.AS_PRECISION, 2, "8.9")
MIB = 1 << 20
CHILD = f"block = b'x' * {60 * MIB}; import time; time.sleep(1.6)"
PARENT = (
    f"import subprocess, sys; block = b'x' * {60 * MIB}; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True);"
    "print('done')"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_memory_of_children_counts() -> None:
    both = run_watched(python(PARENT), "the test")
    assert both.output == "done\n"
    assert 120 * MIB < both.peak_tree_bytes < 400 * MIB
    assert both.wall_seconds > 1.5
    assert both.cpu_seconds > 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('no such luck')", "the build failed: ValueError: no such luck"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "the build failed: it was killed by signal 9, perhaps because memory",
        ),
        ("raise SystemExit(3)", "the build failed: exit status 3, without an error message"),
    ],
)
def test_the_last_words_of_a_failure_are_kept(code: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        run_watched(python(code), "the build")


def test_memory_without_a_field_of_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has no VmNothing; memory can be measured on Linux only"):
        memory_field("VmNothing")
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "status")
    with pytest.raises(EngineError, match="has no VmHWM; memory can be measured on Linux only"):
        memory_field("VmHWM")


def test_nothing_runs_on_after_an_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_watched(python(f"import time; time.sleep(1); open({str(tmp_path / 'late')!r}, 'w')"), "the test")
    assert not list(tmp_path.iterdir())


def test_an_interruption_ends_the_processes_of_a_command_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sleep = time.sleep
    child = f"import time; open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"

    def interrupt(seconds: float) -> None:
        while not (tmp_path / "begun").exists():
            sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_watched(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"), "the test")
    sleep(4)
    assert not (tmp_path / "late").exists()


def test_what_cannot_be_measured_is_said_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", engine_builds.__name__, "--preset", "tinny", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "tinny" in done.stderr


def test_weights_made_on_the_way_are_those_of_a_random_bundle(tmp_path: Path) -> None:
    config = CASE.config
    written, made = write_random_bundle(config, tmp_path / "bundle"), RandomCheckpoint.of(config)
    assert [prior.level for prior in config.priors] == [0]
    tensors, others = written.tensors("prior_0"), made.tensors("prior_0")
    assert tensors.infos == others.infos
    for name in tensors.infos:
        torch.testing.assert_close(others.load(name), tensors.load(name), rtol=0, atol=0)
    assert made.fingerprint() == RandomCheckpoint.of(config).fingerprint()


RECORDED = [
    row for path in sorted(RESULTS.glob("engine-build-*.json")) for row in json.loads(path.read_text())["results"]
]


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['preset']}-{row['level']}-{row['weights']}")
def test_the_room_that_weights_take_is_foreseen(row: dict[str, Any]) -> None:
    """The recorded exports say how much it was."""
    case = BuildCase(row["preset"], row["level"], LinearWeights(row["weights"]), row["parts"], row["capability"])
    assert stored_bytes(case) == pytest.approx(row["export"]["weight_bytes"], rel=0.002)


def test_a_case_without_room_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(EngineError, match=r"5b with precision weights takes about [\d.]+ GB, and 1\.00 GB are free"):
        measure(BuildCase("5b", 2, LinearWeights.AS_PRECISION, 8, "8.9"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failure_is_recorded_and_the_next_case_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(name: str, case: BuildCase, folder: Path) -> dict[str, Any]:
        if case.weights is LinearWeights.INT8 and name == "build":
            raise EngineError("the build of step_0 failed: it was killed by signal 9.")
        return {"wall_seconds": 1.0}

    monkeypatch.setattr(engine_builds, "_measure_stage", stage)
    out = tmp_path / "result.json"
    arguments = ["--preset", "tiny", "--level", "0", "--weights", "int8", "precision"]
    main([*arguments, "--work", str(tmp_path / "work"), "--out", str(out)])
    failed, done = json.loads(out.read_text())["results"]
    assert failed["failed"].endswith("killed by signal 9.")
    assert failed["export"] == done["export"] == done["build"] == {"wall_seconds": 1.0}
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.slow
def test_engines_in_parts_are_exported_built_and_measured(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = measure(CASE, tmp_path)
    assert "failed" not in found
    assert [engine["graph"] for engine in found["build"]["engines"]] == ["step_0_part_0", "step_0_part_1"]
    assert sum(engine["engine_bytes"] for engine in found["build"]["engines"]) > found["export"]["weight_bytes"] / 2
    for stage in ("export", "build"):
        assert found[stage]["peak_rss_bytes"] > 50 * MIB
        assert found[stage]["peak_tree_rss_bytes"] > 50 * MIB
        assert found[stage]["cpu_seconds"] > 0
    assert found["export"]["weight_bytes"] == pytest.approx(stored_bytes(CASE), rel=0.2)  # small tensors are padded
    assert not list(tmp_path.iterdir())
