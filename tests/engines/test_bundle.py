"""A swapped, truncated or bit-flipped file never gets past the loader."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jukebox_deploy.engines import bundle as bundle_module
from jukebox_deploy.engines import manifest_json
from jukebox_deploy.engines.bundle import MANIFEST_NAME, open_bundle, write_manifest
from jukebox_deploy.engines.manifest import PIECE_BYTES, GraphEntry
from jukebox_deploy.errors import EngineError
from tests.engines.handmade_graphs import cache_spec, decode_spec, make_manifest

FILES = ("step_0.onnx", "shared.weights", "vqvae_decode_0.onnx")


@pytest.fixture(scope="module", params=[PIECE_BYTES, 128], ids=["whole", "pieces"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle whose files hold random bytes: the loader looks at their hashes only, of whole files or of pieces."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (bundle_module, manifest_json):
            patch.setattr(module, "PIECE_BYTES", request.param)
        yield write_pristine(tmp_path_factory)


def write_pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    for seed, name in enumerate(FILES):
        (folder / name).write_bytes(bytes((seed * 31 + i * i) % 256 for i in range(300)))
    entries = [
        GraphEntry(cache_spec(), "step_0.onnx", ("shared.weights",)),
        GraphEntry(decode_spec(), "vqvae_decode_0.onnx", ("shared.weights",)),
    ]
    write_manifest(folder, make_manifest(entries))
    return folder


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(pristine, tmp_path / "bundle")


def refusal(folder: Path) -> str:
    with pytest.raises(EngineError) as error:
        open_bundle(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_a_sound_bundle_opens(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.graphs["step_0"] == cache_spec()
    assert opened.paths["step_0"] == bundle / "step_0.onnx"
    assert set(opened.manifest.files) == set(FILES)
    assert {len(record.pieces) for record in opened.manifest.files.values()} in ({0}, {3})


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    assert "there is no manifest.json" in refusal(tmp_path)
    assert "no such folder, so there is no manifest.json" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"bytes": ' + b"9" * 5000 + b"}"])
def test_a_manifest_that_is_not_json(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(content)
    assert "is not JSON" in refusal(bundle)


def test_a_manifest_without_end(bundle: Path) -> None:
    with (bundle / MANIFEST_NAME).open("ab") as file:
        file.truncate(2**30)
    assert "a manifest has at most" in refusal(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert f"{name} is missing" in refusal(bundle)


def test_a_folder_in_the_place_of_a_file(bundle: Path) -> None:
    (bundle / FILES[0]).unlink()
    (bundle / FILES[0]).mkdir()
    assert "is not a file" in refusal(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_place_of_a_file(bundle: Path) -> None:
    (bundle / FILES[0]).unlink()
    os.mkfifo(bundle / FILES[0])
    assert "is not a file" in refusal(bundle)


def test_a_link_out_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / FILES[0]).rename(tmp_path / "outside.onnx")
    (bundle / FILES[0]).symlink_to(tmp_path / "outside.onnx")
    assert "is a link that leaves the bundle" in refusal(bundle)


def test_a_link_within_the_bundle_is_fine(bundle: Path) -> None:
    (bundle / FILES[0]).rename(bundle / "elsewhere.onnx")
    (bundle / FILES[0]).symlink_to("elsewhere.onnx")
    assert open_bundle(bundle).graphs


def test_a_link_to_itself(bundle: Path) -> None:
    (bundle / FILES[0]).unlink()
    (bundle / FILES[0]).symlink_to(FILES[0])
    assert FILES[0] in refusal(bundle)


def test_a_file_that_nobody_listed_is_no_graph(bundle: Path) -> None:
    (bundle / "step_9.onnx").write_bytes(b"x")
    (bundle / "step_0.engine").write_bytes(b"x")
    assert set(open_bundle(bundle).paths.values()) == {bundle / name for name in FILES if name.endswith(".onnx")}


def test_swapped_files(bundle: Path) -> None:
    first, second = (bundle / name for name in FILES[:2])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert "its SHA-256 differs" in refusal(bundle)


def test_a_look_without_hashes_still_checks_sizes(bundle: Path) -> None:
    content = bytearray((bundle / FILES[0]).read_bytes())
    content[7] ^= 1
    (bundle / FILES[0]).write_bytes(content)
    assert open_bundle(bundle, verify_hashes=False).graphs
    (bundle / FILES[0]).write_bytes(content[:-1])
    with pytest.raises(EngineError, match="has 299 bytes, the manifest says 300"):
        open_bundle(bundle, verify_hashes=False)


_FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FUZZ
@given(name=st.sampled_from(FILES), position=st.integers(0, 299), bit=st.integers(0, 7))
def test_no_flipped_bit_gets_through(bundle: Path, name: str, position: int, bit: int) -> None:
    content = (bundle / name).read_bytes()
    flipped = bytearray(content)
    flipped[position] ^= 1 << bit
    (bundle / name).write_bytes(flipped)
    try:
        assert "its SHA-256 differs" in refusal(bundle)
    finally:
        (bundle / name).write_bytes(content)


@_FUZZ
@given(name=st.sampled_from(FILES), position=st.integers(0, 299), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_file_that_changed_after_opening_is_read(
    bundle: Path, name: str, position: int, bit: int
) -> None:
    opened, content = open_bundle(bundle), (bundle / name).read_bytes()
    assert opened.read_file(name) == content
    flipped = bytearray(content)
    flipped[position] ^= 1 << bit
    try:
        for changed in (flipped, content[:position], content + b"x"):
            (bundle / name).write_bytes(changed)
            with pytest.raises(EngineError, match="its SHA-256 differs"):
                opened.read_file(name)
    finally:
        (bundle / name).write_bytes(content)


def test_a_large_file_is_hashed_by_all_cores(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_bundle(bundle)
    record = opened.manifest.files[FILES[0]]
    monkeypatch.setattr(bundle_module, "usable_cores", lambda: 3)
    barrier = threading.Barrier(3)  # passed only by three threads at once

    def sha256(content: bytes) -> hashlib._Hash:
        if record.pieces:
            barrier.wait(timeout=60)
        return hashlib.sha256(content)

    monkeypatch.setattr(bundle_module, "hashlib", SimpleNamespace(sha256=sha256))
    assert opened.read_file(FILES[0]) == (bundle / FILES[0]).read_bytes()


@_FUZZ
@given(name=st.sampled_from(FILES), length=st.integers(0, 299))
def test_no_truncated_file_gets_through(bundle: Path, name: str, length: int) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:length])
    try:
        assert f"has {length} bytes, the manifest says 300" in refusal(bundle)
    finally:
        (bundle / name).write_bytes(content)


@settings(_FUZZ, max_examples=300)
@given(data=st.data())
def test_a_flipped_bit_in_the_manifest_changes_nothing_or_is_refused(bundle: Path, data: st.DataObject) -> None:
    path = bundle / MANIFEST_NAME
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        assert json.loads(flipped) == json.loads(content)  # white space
        assert open_bundle(bundle).graphs
    except (AssertionError, ValueError):
        refusal(bundle)
    finally:
        path.write_bytes(content)


@settings(_FUZZ, max_examples=100)
@given(data=st.data())
def test_a_truncated_manifest_is_refused(bundle: Path, data: st.DataObject) -> None:
    path = bundle / MANIFEST_NAME
    content = path.read_bytes()
    end = len(content.rstrip())
    path.write_bytes(content[: data.draw(st.integers(0, end - 1))])
    try:
        assert "is not JSON" in refusal(bundle)
    finally:
        path.write_bytes(content)


def test_a_manifest_that_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "step 0.onnx").write_bytes(b"x")
    with pytest.raises(EngineError, match="not a plain path"):
        write_manifest(tmp_path, make_manifest([GraphEntry(cache_spec(), "step 0.onnx")]))
    assert not (tmp_path / MANIFEST_NAME).exists()
