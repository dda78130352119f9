"""Kernels that a pretended TensorRT-RTX compiled are there in the next run, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.engines.tensorrt.kernels import KernelCache, KernelKey
from jukebox_deploy.errors import EngineError
from tests.engines import fake_tensorrt, handmade_prior
from tests.engines.fake_tensorrt import FakeSettings, save_engines
from tests.engines.host_device import HostDevice

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> EngineBundle:
    onnx = handmade_prior.save(tmp_path_factory.mktemp("handmade") / "onnx")
    return save_engines(onnx, tmp_path_factory.mktemp("rtx") / "engines")


def run(bundle: EngineBundle, folder: Path | None, settings: FakeSettings | None = None) -> list[str]:
    """A session from start to end; the engines whose kernels were compiled."""
    settings = settings or FakeSettings()
    platform = fake_tensorrt.platform(bundle.manifest.target, HostDevice(), settings)
    with TensorRtEngine(bundle, platform, TensorRtOptions(kernel_caches=folder)) as engine:
        session = engine.prior_session(0, 2)
        session.step(1)
        session.prefill(range(2))
        engine.runner(GraphKind.VQVAE_DECODE, 0)({"codes": np.zeros((1, 4), np.int64)})
    assert settings.contexts == 0
    return [kernel.split()[0] for kernel in settings.compiled]


ALL = ["step_0", "prefill_0", "vqvae_decode_0"]


def test_what_was_compiled_is_not_compiled_again(bundle: EngineBundle, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    assert run(bundle, folder) == ALL
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(path.suffix for path in files) == 3 * [".json"] + 3 * [".kernels"]
    assert run(bundle, folder) == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == files  # nothing new, nothing written


def test_without_a_folder_nothing_is_kept(bundle: EngineBundle) -> None:
    assert run(bundle, None) == run(bundle, None) == ALL


@pytest.mark.parametrize("damage", ["kernels", "record", "other key", "no record", "no JSON"])
def test_what_does_not_match_its_record_is_never_loaded(
    bundle: EngineBundle, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(bundle, tmp_path)
    for kernels in tmp_path.glob("*.kernels"):
        path = kernels.with_suffix(".json")
        record = json.loads(path.read_text())
        if damage == "kernels":
            kernels.write_bytes(kernels.read_bytes().replace(b"_0", b"_1"))
        if damage == "record":
            path.write_text(json.dumps({**record, "sha256": "0" * 64}))
        if damage == "other key":
            path.write_text(json.dumps({**record, "engine": "0" * 64}))
        if damage == "no record":
            path.unlink()
        if damage == "no JSON":
            path.write_bytes(b"{")
    loaded = []
    monkeypatch.setattr(fake_tensorrt.IRuntimeCache, "deserialize", lambda cache, blob: loaded.append(blob))
    assert run(bundle, tmp_path) == ALL
    assert loaded == []
    monkeypatch.undo()
    assert run(bundle, tmp_path) == []  # it was written anew


def test_kernels_of_another_environment_are_compiled_anew_without_a_word(bundle: EngineBundle, tmp_path: Path) -> None:
    run(bundle, tmp_path)
    newer = FakeSettings(environment="driver 600")
    assert run(bundle, tmp_path, newer) == ALL
    assert run(bundle, tmp_path, FakeSettings(environment="driver 600")) == []


def test_the_name_depends_on_all_that_kernels_depend_on(tmp_path: Path) -> None:
    key = KernelKey("ab" * 32, "tensorrt-rtx", "1.7", "a GPU", "8.9")
    keys = [key, *(replace(key, **{name: f"other {value}"}) for name, value in asdict(key).items())]
    assert len({KernelCache(tmp_path, key).path for key in keys}) == 6


def test_a_folder_that_cannot_be_written_to_costs_no_song(bundle: EngineBundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match="compiled kernels were not kept: .*a part of this path is a file"):
        assert run(bundle, tmp_path / "file" / "kernels") == ALL


def test_a_flavour_that_compiles_when_it_builds_keeps_no_kernels(tmp_path: Path) -> None:
    onnx = handmade_prior.save(tmp_path / "onnx")
    engines = save_engines(onnx, tmp_path / "engines", Target.TENSORRT)
    with pytest.raises(EngineError, match=r"tensorrt compiles kernels when it builds.*drop --kernel-caches"):
        run(engines, tmp_path / "kernels")
