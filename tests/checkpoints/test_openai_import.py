"""OpenAI's files: what they hold arrives bit for bit, and what is wrong with them is told at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.checkpoints.exporting import export_openai
from jukebox_deploy.checkpoints.openai import import_openai
from jukebox_deploy.config import (
    JukeboxConfig,
    LabelConfig,
    LabelRules,
    LyricsConfig,
    PriorConfig,
    TimingConfig,
    TransformerConfig,
    VQVAEConfig,
)
from jukebox_deploy.errors import CheckpointError, ConfigError, JukeboxError
from jukebox_deploy.files import sha256_of_file

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"

GOLDEN_CONFIG = JukeboxConfig(
    "golden",
    VQVAEConfig(width=6, depth=1, embedding_width=8, codebook_size=32),
    (
        PriorConfig(
            level=2,
            window=32,
            codebook_size=32,
            transformer=TransformerConfig(
                32,
                width=24,
                depth=19,
                heads=2,
                order=AttentionOrder.FACTORED_LATE_CROSS,
                blocks=4,
                encoder_tokens=12,
                init_scale=0.1,
            ),
            labels=LabelConfig(LabelRules.WORDS, artists=6, genres=5, genre_slots=5, timing=TimingConfig(6, 0.1, 2.0)),
            lyrics=LyricsConfig(
                tokens=12,
                vocabulary=20,
                encoder=TransformerConfig(
                    12, width=16, depth=2, heads=2, order=AttentionOrder.FACTORED, blocks=3, init_scale=0.7
                ),
            ),
            merged_decoder=True,
        ),
    ),
)
"""The model of the golden files, which the original implementation's own checkpoint writer wrote."""


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def fingerprint(tensor: torch.Tensor) -> list:
    array = np.ascontiguousarray(tensor.numpy())
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()[:16]]


def assert_same_states(left: dict, right: dict) -> None:
    assert set(left) == set(right)
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert torch.equal(tensor, right[name]), name


def altered(tmp_path: Path, source: Path, change, **options) -> Path:
    """A copy of a checkpoint file under the same name, with its state changed in place."""
    data = load(source)
    change(data["model"])
    path = tmp_path / source.name
    torch.save(data, path, **options)
    return path


def test_the_original_writers_files(tmp_path):
    files = [GOLDENS / "checkpoint_prior.pth.tar", GOLDENS / "checkpoint_vqvae.pth.tar"]
    bundle = import_openai(files, GOLDEN_CONFIG, tmp_path / "bundle")
    assert bundle.config == GOLDEN_CONFIG
    written = export_openai(bundle, tmp_path / "again")
    assert [path.name for path in written] == ["vqvae.pth.tar", "prior_level_2.pth.tar"]
    expected = json.loads((GOLDENS / "checkpoint_expected.json").read_text())
    for path, component in zip(written, ["vqvae", "prior"], strict=True):
        state = load(path)["model"]
        assert {name: fingerprint(tensor) for name, tensor in state.items()} == expected[component]


def test_half_precision_stays_where_it_was(tmp_path):
    files = [GOLDENS / "checkpoint_prior.pth.tar", GOLDENS / "checkpoint_vqvae.pth.tar"]
    infos = import_openai(files, GOLDEN_CONFIG, tmp_path / "bundle").tensors("prior_2").infos
    half = {name for name, info in infos.items() if info.dtype is torch.float16}
    assert "core.transformer.layers.0.mlp.expand.weight" in half
    assert "lyric_encoder.projection.weight" in half
    assert not any(name.endswith("bias") or "embedding" in name for name in half)


def test_round_trip(tiny_openai_files, tiny_bundle, tmp_path):
    again = export_openai(tiny_bundle, tmp_path / "again")
    assert [path.name for path in again] == [path.name for path in tiny_openai_files]
    for before, after in zip(tiny_openai_files, again, strict=True):
        assert_same_states(load(before)["model"], load(after)["model"])


def test_files_are_told_by_their_tensors(tiny_openai_files, tiny_bundle, tmp_path):
    vqvae, lower, upper, top = tiny_openai_files
    renamed = [shutil.copy(path, tmp_path / name) for path, name in ((vqvae, "a.pt"), (top, "b.pt"))]
    # The upsamplers look alike: the published name decides, or else the level that the file notes.
    renamed += [shutil.copy(lower, tmp_path / "lower.pt"), shutil.copy(upper, tmp_path / "prior_level_1.pth.tar")]
    bundle = import_openai([Path(path) for path in renamed[::-1]], None, tmp_path / "bundle")
    assert bundle.config == tiny_bundle.config
    for component in bundle.components:
        assert sha256_of_file(bundle.weights_file(component)) == sha256_of_file(tiny_bundle.weights_file(component))


def test_an_upsampler_of_unknown_level_is_refused(tiny_openai_files, tmp_path):
    data = load(tiny_openai_files[1])
    torch.save(data | {"hps": {}}, tmp_path / "upsampler.pt")
    with pytest.raises(CheckpointError, match=r"could be prior_0 or prior_1.*prior_level_N"):
        import_openai([tiny_openai_files[0], tmp_path / "upsampler.pt"], "tiny", tmp_path / "out")


def test_a_part_of_a_set(tiny_openai_files, tmp_path):
    bundle = import_openai([tiny_openai_files[0], tiny_openai_files[3]], "tiny", tmp_path / "bundle")
    assert bundle.components == ("vqvae", "prior_2")
    assert [prior.level for prior in bundle.config.priors] == [2]
    assert sorted(os.listdir(bundle.folder)) == ["config.json", "prior_2.safetensors", "vqvae.safetensors"]


def test_where_it_came_from_is_noted(tiny_openai_files, tiny_bundle):
    records = {record["component"]: record for record in tiny_bundle.source["files"]}
    assert records["vqvae"]["sha256"] == hashlib.sha256(tiny_openai_files[0].read_bytes()).hexdigest()
    assert records["prior_2"]["bytes"] == tiny_openai_files[3].stat().st_size


def test_the_other_name_of_conditioner_blocks_a_prefix_and_the_zip_format(tiny_openai_files, tiny_bundle, tmp_path):
    def change(state):
        renamed = OrderedDict(
            (f"module.{name.replace('.0.blocks.', '.0.model.')}", tensor) for name, tensor in state.items()
        )
        state.clear()
        state.update(renamed)

    path = altered(tmp_path, tiny_openai_files[1], change)  # written as zip
    assert any(".1.0.model.3.model." in name for name in load(path)["model"])
    bundle = import_openai([tiny_openai_files[0], path], "tiny", tmp_path / "bundle")
    assert sha256_of_file(bundle.weights_file("prior_0")) == sha256_of_file(tiny_bundle.weights_file("prior_0"))


def test_optimiser_state_is_left_out(tiny_openai_files, tiny_bundle, tmp_path):
    data = load(tiny_openai_files[0])
    optimiser = {"state": {0: {"exp_avg": torch.ones(10)}}, "param_groups": [{"lr": np.float64(1e-3)}]}
    torch.save(data | {"opt": optimiser}, tmp_path / "vqvae.pth.tar", _use_new_zipfile_serialization=False)
    bundle = import_openai([tmp_path / "vqvae.pth.tar"], "tiny", tmp_path / "bundle")
    assert sha256_of_file(bundle.weights_file("vqvae")) == sha256_of_file(tiny_bundle.weights_file("vqvae"))


def test_all_that_is_wrong_is_told_at_once(tiny_openai_files, tmp_path):
    def change(state):
        del state["prior.pos_emb.pos_emb"]
        state["prior.extra"] = torch.ones(1)
        state["y_emb.artist_emb.emb.weight"] = torch.ones(3, 128)

    path = altered(tmp_path, tiny_openai_files[3], change)
    with pytest.raises(CheckpointError) as caught:
        import_openai([tiny_openai_files[0], path], "tiny", tmp_path / "out")
    message = str(caught.value)
    assert "missing (1): prior.pos_emb.pos_emb" in message
    assert "unexpected (1): prior.extra" in message
    assert "y_emb.artist_emb.emb.weight [3, 128] (expected [16, 128])" in message
    assert not (tmp_path / "out").exists()


def test_the_preset_that_would_fit_is_named(tiny_openai_files, tmp_path):
    with pytest.raises(CheckpointError, match="of preset tiny, not of 1b_lyrics"):
        import_openai(tiny_openai_files[:1], "1b_lyrics", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"(?s)nor of any preset.* more"):
        import_openai([GOLDENS / "checkpoint_vqvae.pth.tar"], "1b_lyrics", tmp_path / "out")
    with pytest.raises(CheckpointError, match="not the tensors of any preset"):
        import_openai([GOLDENS / "checkpoint_vqvae.pth.tar"], None, tmp_path / "out")
    with pytest.raises(ConfigError, match="no preset 'tinny'"):
        import_openai(tiny_openai_files[:1], "tinny", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_files_of_another_preset_are_compared_with_their_like_in_few_words(tiny_openai_files, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        import_openai(tiny_openai_files, "5b", tmp_path / "out")
    heads = [line for line in str(caught.value).splitlines() if not line.startswith("  ")]
    for path, component, head in zip(tiny_openai_files, ("vqvae", "prior_0", "prior_1", "prior_2"), heads, strict=True):
        assert head.startswith(f"{path}: these are the tensors of preset tiny, not of 5b")
        assert f"Compared with {component} of 5b" in head
    assert all(line.count(" and ") == 1 for line in str(caught.value).splitlines() if " more" in line)
    assert max(map(len, str(caught.value).splitlines())) < 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("decoders.2.out.bias"), r"1 tensor differs:\n  missing \(1\): decoders\.2\.out\.bias"),
        (lambda state: state.update(extra=torch.ones(1)), r"1 tensor differs:\n  unexpected \(1\): extra"),
        (
            lambda state: state.update({"decoders.2.out.bias": torch.ones(7)}),
            r"1 tensor differs:\n  of another shape \(1\): decoders\.2\.out\.bias \[7\] \(expected \[1\]\)",
        ),
    ],
    ids=["missing", "unexpected", "misshaped"],
)
def test_one_tensor_that_differs_is_named_without_a_preset(tiny_openai_files, tmp_path, change, words):
    path = altered(tmp_path, tiny_openai_files[0], change)
    with pytest.raises(
        CheckpointError, match=rf"not the tensors of any preset\. Compared with the nearest, vqvae of tiny, .*{words}"
    ):
        import_openai([path], None, tmp_path / "out")
    with pytest.raises(CheckpointError, match=rf"(?s)No preset has all.*{words}.*\n.*tensors of preset tiny\."):
        import_openai([path, tiny_openai_files[3]], None, tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.nan, torch.float32), (np.inf, torch.float16), (-np.inf, torch.bfloat16)]
)
def test_weights_that_are_no_numbers_are_refused(tiny_openai_files, tmp_path, value, dtype):
    def change(state):
        state["prior.pos_emb.pos_emb"] = state["prior.pos_emb.pos_emb"].to(dtype)
        state["prior.pos_emb.pos_emb"][1, 2:4] = value

    path = altered(tmp_path, tiny_openai_files[3], change)
    with pytest.raises(CheckpointError, match=r"prior\.pos_emb\.pos_emb: 2 of its [\d,]+ values are NaN or infinite"):
        import_openai([tiny_openai_files[0], path], "tiny", tmp_path / "out")
    assert os.listdir(tmp_path) == [path.name]


def test_tied_tensors_that_differ_are_refused(tiny_openai_files, tmp_path):
    def change(state):
        state["prior.x_out.weight"] = state["prior.x_out.weight"] + 1

    path = altered(tmp_path, tiny_openai_files[3], change)
    with pytest.raises(CheckpointError, match=r"x_emb\.weight and prior\.x_out\.weight differ"):
        import_openai([tiny_openai_files[0], path], "tiny", tmp_path / "out")
    assert os.listdir(tmp_path) == [path.name]


def test_sets_that_make_no_system(tiny_openai_files, tmp_path):
    with pytest.raises(CheckpointError, match="is the VQ-VAE"):
        import_openai(tiny_openai_files[1:], "tiny", tmp_path / "out")
    with pytest.raises(CheckpointError, match="so is"):
        import_openai([tiny_openai_files[0], *tiny_openai_files], "tiny", tmp_path / "out")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"expected a dictionary with 'model'"):
        import_openai([tmp_path / "other.pt"], "tiny", tmp_path / "out")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_files_leave_nothing(tiny_openai_files, tmp_path, share):
    source = tiny_openai_files[3]
    cut = tmp_path / source.name
    cut.write_bytes(source.read_bytes()[: int(share * source.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"prior_level_2\.pth\.tar.*truncated"):
        import_openai([tiny_openai_files[0], cut], "tiny", tmp_path / "out")
    assert os.listdir(tmp_path) == [cut.name]


def test_a_full_disk_leaves_nothing(tiny_openai_files, tmp_path, monkeypatch):
    import errno

    from jukebox_deploy.checkpoints import safetensors_writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors_writer, "_write_values", full)
    with pytest.raises(JukeboxError, match="disk is full"):
        import_openai(tiny_openai_files, "tiny", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_taken_folder_is_left_alone(tiny_openai_files, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(JukeboxError, match="not empty"):
        import_openai(tiny_openai_files, "tiny", tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_presets_that_share_the_parts_at_hand_are_as_good_as_each_other(tiny_openai_files, tmp_path, monkeypatch):
    from jukebox_deploy.presets import PRESETS

    twin = replace(PRESETS["tiny"], name="twin")
    monkeypatch.setitem(PRESETS, "twin", twin)
    assert import_openai(tiny_openai_files, None, tmp_path / "a").config.name == "tiny"
    other = replace(twin.priors[2], hop_fraction=0.5)
    monkeypatch.setitem(PRESETS, "twin", replace(twin, priors=(*twin.priors[:2], other)))
    with pytest.raises(CheckpointError, match="tiny, twin; say which"):
        import_openai(tiny_openai_files, None, tmp_path / "b")


def test_a_full_disk_while_exporting_leaves_nothing(tiny_bundle, tmp_path):
    """A real limit, in a process of its own: torch must not turn it into something else."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from jukebox_deploy.checkpoints.bundle import CheckpointBundle\n"
        "from jukebox_deploy.checkpoints.exporting import export_openai\n"
        "from jukebox_deploy.errors import JukeboxError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try: export_openai(CheckpointBundle.open(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "except JukeboxError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tiny_bundle.folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "larger than this system allows" in done.stdout
    assert os.listdir(tmp_path) == []
