"""`inspect`: both kinds of bundles, for people and for machines."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jukebox_deploy.cli.main import cli
from jukebox_deploy.contract import DimensionRange, LinearWeights
from jukebox_deploy.engines.bundle import open_bundle, write_manifest
from jukebox_deploy.engines.manifest import SOURCE_GRAPHS, GraphEntry, Target
from tests.engines.handmade_graphs import cache_spec, make_manifest, save_bundle, save_cut_bundle


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def described(*arguments: str | Path) -> dict[str, Any]:
    result = inspect(*arguments, "--json")
    assert result.exit_code == 0, result.output
    description: dict[str, Any] = json.loads(result.output)
    return description


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "onnx").folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from jukebox_deploy.checkpoints.random_bundle import write_random_bundle

    return write_random_bundle("tiny", tmp_path_factory.mktemp("checkpoint") / "tiny").folder


def test_an_engine_bundle_as_json(engines: Path) -> None:
    description = described(engines, "--memory", "0.000001")
    assert description["kind"] == "engine bundle"
    assert description["hashes"] == "all match"
    assert description["graphs"]["step_0"]["table"] == cache_spec().to_json()
    sizes = [(engines / name).stat().st_size for name in ("step_0.onnx", "step_0.weights")]
    assert description["graphs"]["step_0"]["bytes"] == sum(sizes)
    (memory,) = description["memory"]
    assert memory["weights"] == sum(sizes)
    assert memory["caches_per_slot"] == 512
    assert memory["slots_that_fit"] == 0  # in a thousand bytes
    assert memory["total"]["16"] - memory["total"]["1"] == 15 * (512 + memory["window_per_slot"])
    assert list(memory["total"]) == ["1", "2", "4", "8", "16"]
    assert described(engines, "--memory", "1")["memory"][0]["slots_that_fit"] == 16
    (vqvae,) = description["vqvae_memory"]
    sizes = [(engines / name).stat().st_size for name in description["graphs"]["vqvae_decode_0"]["weights"]]
    size = (engines / "vqvae_decode_0.onnx").stat().st_size + sum(sizes)
    assert vqvae == {"graph": "vqvae_decode_0", "weights": size, "activations": None, "total": size}


def test_an_engine_bundle_for_people(engines: Path) -> None:
    result = inspect(engines, "--graph", "step_0", "--memory", "8")
    assert result.exit_code == 0, result.output
    for part in ("engine bundle of tiny for onnxruntime, fp16", "all match", "[B, 2, 8, 16]", "in place"):
        assert part in " ".join(result.output.split())  # a long path breaks the line
    totals = r"0 +fp16( +[\d.]+ kB){5} +16\b"
    assert re.search(totals, result.output), "the totals end with the slots that fit"
    assert not re.search(r"[KMG]iB", result.output)
    assert "on a GPU, what CUDA itself takes" in " ".join(result.output.split())
    assert "hashes: not checked" in inspect(engines, "--quick").output


def test_integer_weights_are_named_wherever_the_precision_is(engines: Path) -> None:
    manifest = open_bundle(engines).manifest
    write_manifest(engines, replace(manifest, linear_weights=LinearWeights.INT8))
    output = " ".join(inspect(engines).output.split())
    assert "for onnxruntime, fp16 with int8 weights, " in output
    assert output.count(" 0 fp16 with int8 weights ") == 2, "in the rows of what memory consists of, and of its sum"


WAS_COMPARED = "parity: the export compared its graphs; the report is in the manifest"
WAS_NOT = "parity: the export compared nothing (--no-validate)"
BEFORE_THE_BUILD = "parity: the export compared the graphs that this bundle was built from, unless it had --no-validate"
AFTER_THE_BUILD = "parity: what was built was not compared; `jukebox-deploy verify DIR --against BUNDLE --record`"


@pytest.mark.parametrize(
    ("report", "built", "said"),
    [
        ({"graphs": {"step_0": {"runs": [], "tensorrt_rtx": "not checked"}}}, False, [WAS_COMPARED]),
        ({"graphs": {"step_0": {"tensorrt_rtx": "not checked"}}}, False, [WAS_NOT]),
        (None, True, [BEFORE_THE_BUILD, AFTER_THE_BUILD]),
        (
            {"verification": {"outcomes": {"passed": 3}}},
            True,
            [BEFORE_THE_BUILD, "parity: verify recorded 3 passed"],
        ),
    ],
)
def test_what_was_compared_with_pytorch(engines: Path, report: Any, built: bool, said: list[str]) -> None:
    manifest = open_bundle(engines).manifest
    facts = {SOURCE_GRAPHS: ["0" * 64]} if built else {}
    graphs = {name: replace(entry, options=facts) for name, entry in manifest.graphs.items()}
    write_manifest(engines, replace(manifest, graphs=graphs, parity=report))
    output = " ".join(inspect(engines).output.split())
    assert output.count("parity: ") == len(said)
    assert [line for line in said if line not in output] == []


def test_settings_that_suit_the_model(tmp_path: Path, checkpoint: Path) -> None:
    assert "sampled by default" not in inspect(checkpoint, "--quick").output
    assert described(checkpoint, "--quick")["sampling"] is None
    advice = {"levels": [{}, {"temperature": 0.8}, {"top_k": 9}], "total_seconds": 60}
    plain = {"temperature": 0.99, "top_k": None, "top_p": None}
    levels = [plain, {**plain, "temperature": 0.8}, {**plain, "top_k": 9}]
    advised = shutil.copytree(checkpoint, tmp_path / "advised")
    (advised / "sampling.json").write_text(json.dumps(advice))
    exported = save_bundle(tmp_path / "onnx")
    write_manifest(exported.folder, replace(exported.manifest, sampling=advice))
    for folder in (advised, exported.folder):
        assert described(folder, "--quick")["sampling"] == {"levels": levels, "total_seconds": 60.0}
        shown = "sampled by default with --total-seconds 60.0 --temperature 1=0.8 --top-k 2=9"
        assert shown in " ".join(inspect(folder, "--quick").output.split())


def test_parts_are_shown_one_by_one(tmp_path: Path) -> None:
    folder = save_cut_bundle(tmp_path / "engines", parts=3).folder
    description = described(folder)
    step = description["graphs"]["step_2"]
    assert (step["file"], step["bytes"]) == (None, 16 * 1024)
    shown = [{key: value for key, value in part.items() if key != "table"} for part in step["parts"]]
    sizes, layers = (5120, 5120, 6144), ([0, 4], [5, 9], [10, 15])
    assert shown == [
        {
            "graph": f"step_2_part_{index}",
            "file": f"step_2_part_{index}.engine",
            "bytes": sizes[index],
            "stack_layers": layers[index],
            "network_layers": 100 + index,
        }
        for index in range(3)
    ]
    assert description["graphs"]["vqvae_decode_0"]["parts"] == []
    (memory,) = description["memory"]
    assert memory["total"]["16"] - memory["total"]["1"] == 15 * sum(
        memory[f"{what}_per_slot"] for what in ("caches", "window", "hand_over")
    )


def test_parts_for_people(tmp_path: Path) -> None:
    folder = save_cut_bundle(tmp_path / "engines", parts=3).folder
    output = " ".join(inspect(folder, "--graph", "step_2_part_1").output.split())
    rows = ("step_2 3 parts 16.4 kB", "step_2_part_2.engine 6.14 kB 10-15")
    for text in (*rows, " between ", "tensors of step_2_part_1"):
        assert text in output
    assert "has no graph step_2_part_3; it has" in inspect(folder, "--graph", "step_2_part_3").output


def built_bundle(folder: Path, taken: DimensionRange, **options: Any) -> Path:
    """A step as if it had been built; nothing in it could run."""
    folder.mkdir()
    (folder / "step_0.engine").write_bytes(bytes(2048))
    spec = replace(cache_spec(), ranges=(taken,))
    facts = {"profiles": 1, "layers": 1234, "activation_bytes": 256, **options}
    entry = GraphEntry(spec, "step_0.engine", compute_capabilities=("8.9",), options=facts)
    write_manifest(folder, replace(make_manifest([entry]), target=Target.TENSORRT_RTX))
    return folder


def test_how_engines_were_built(tmp_path: Path) -> None:
    reason = "compute capability 8.6 cannot run fp8 weights: store them as int8 or int4, or leave it out."
    options = {"kernels": 321, "slots": [1, 4], "features": ["weight-streaming", "stripped"], "refused": [reason]}
    folder = built_bundle(tmp_path / "engines", DimensionRange("B", 1, 4, 4), **options)
    output = " ".join(inspect(folder).output.split())
    assert "step_0 1,234 321 1, 4 weight-streaming, stripped" in output
    assert f"not for all GPUs, step_0: {reason}" in output
    assert "window" in output
    assert "kernels per run" not in inspect(save_bundle(tmp_path / "onnx").folder).output
    plain = built_bundle(tmp_path / "plain", DimensionRange("B", 1, 4, 16), slots=[], features=[], kernels=None)
    assert " step_0 1,234 4 " in " ".join(inspect(plain).output.split())


def test_an_engine_of_one_number_of_slots(tmp_path: Path) -> None:
    folder = built_bundle(tmp_path / "engines", DimensionRange("B", 1, 1, 1))
    rows = [line for line in inspect(folder, "--memory", "8").output.splitlines() if line.strip().startswith("0 ")]
    assert re.sub(r"[\d.]+ kB", "SIZE", rows[1]).split() == ["0", "fp16", "SIZE", "1"]
    assert list(described(folder)["memory"][0]["total"]) == ["1"]


def test_slots_that_an_engine_does_not_take_do_not_fit(tmp_path: Path) -> None:
    folder = built_bundle(tmp_path / "engines", DimensionRange("B", 4, 4, 8))
    (memory,) = described(folder)["memory"]
    assert list(memory["total"]) == ["4", "8"]
    fits = {
        size: described(folder, "--memory", f"{size / 1e9:.9f}")["memory"][0]["slots_that_fit"]
        for size in (memory["total"]["4"] - 1, memory["total"]["4"], memory["total"]["8"])
    }
    assert list(fits.values()) == [0, 4, 8]


def test_a_checkpoint_bundle(checkpoint: Path) -> None:
    description = described(checkpoint)
    assert description["kind"] == "checkpoint bundle"
    assert list(description["components"]) == ["vqvae", "prior_0", "prior_1", "prior_2"]
    top = description["components"]["prior_2"]
    assert top["dtypes"] == {"float32": top["parameters"]}
    assert top["bytes"] == 4 * top["parameters"]
    assert [(plan["level"], plan["precision"]) for plan in description["memory"]] == [
        (level, precision) for precision in ("fp32", "fp16") for level in (0, 1, 2)
    ]
    assert len(description["fingerprint"]) == 64
    assert described(checkpoint, "--quick")["fingerprint"] is None
    assert "checkpoint bundle of tiny" in inspect(checkpoint, "--memory", "24").output


WITHOUT_EXPORT = """
import sys
for package in ("torch", "onnx_ir", "onnxscript", "polygraphy"):
    sys.modules[package] = None
from jukebox_deploy.cli.main import main
main()
"""


def test_a_checkpoint_bundle_is_shown_without_pytorch(checkpoint: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_EXPORT, "inspect", str(checkpoint), "--json"]
    shown = json.loads(subprocess.check_output(command, text=True))
    compared = described(checkpoint)
    assert (compared.pop("tensors"), shown.pop("tensors")) == (
        "all fit the configuration",
        "not compared, which takes PyTorch",
    )
    assert shown == compared


def test_a_checkpoint_bundle_with_other_tensors_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    shutil.copy(other / "prior_2.safetensors", other / "prior_0.safetensors")
    result = inspect(other)
    assert result.exit_code == 1
    assert "prior_0.safetensors: does not fit config.json" in " ".join(result.output.split())


def test_what_cannot_be_shown(engines: Path, tmp_path: Path) -> None:
    (engines / "step_0.weights").write_bytes(b"x")
    for arguments, message in [
        ((tmp_path,), "is no bundle"),
        ((tmp_path / "nowhere",), "there is no such folder"),
        ((engines,), "step_0.weights has 1 bytes"),
    ]:
        result = inspect(*arguments)
        assert result.exit_code == 1
        assert message in result.output
    assert inspect(engines, "--memory", "0").exit_code == 2


def test_an_unknown_graph(engines: Path) -> None:
    result = inspect(engines, "--graph", "step_9")
    assert result.exit_code == 1
    assert "has no graph step_9; it has step_0 and vqvae_decode_0" in result.output
