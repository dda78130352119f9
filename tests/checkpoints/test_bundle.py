"""The bundle: checked when opened, loaded without copies, and the same again when read back."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial

import pytest
import torch

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.random_bundle import RandomTensors, write_random_bundle
from jukebox_deploy.checkpoints.tensors import TensorTable
from jukebox_deploy.config import LabelRules
from jukebox_deploy.contract import Precision
from jukebox_deploy.errors import CheckpointError, ConfigError, LabelError
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary
from jukebox_deploy.presets import preset


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A copy of the tiny bundle that a test may damage."""
    return shutil.copytree(tiny_bundle.folder, tmp_path / "bundle")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_opened_again(tiny_bundle):
    again = CheckpointBundle.open(tiny_bundle.folder)
    assert again == tiny_bundle
    assert again.components == ("vqvae", "prior_0", "prior_1", "prior_2")


def test_loaded_modules_hold_the_files_weights(tiny_bundle):
    for module, component in ((tiny_bundle.load_vqvae(), "vqvae"), (tiny_bundle.load_prior(1), "prior_1")):
        source = tiny_bundle.tensors(component)
        state = module.state_dict()
        assert set(state) == set(source.infos)
        assert all(torch.equal(state[name], source.load(name)) for name in state)
        assert not any(t.is_meta for t in (*module.parameters(), *module.buffers()))
        assert all(p.requires_grad for p in module.parameters())


def test_loaded_modules_run(tiny_bundle):
    vqvae, prior = tiny_bundle.load_vqvae(), tiny_bundle.load_prior(2)
    with torch.no_grad():
        audio = vqvae.decode(torch.arange(60)[None], 2)
        logits = prior(torch.arange(40)[None], torch.zeros(1, 128))
    assert 0.01 < audio.std() < 1
    assert logits.shape == (1, 40, 79 + 512)
    assert logits.std() > 0.1


def test_loading_copies_nothing_of_the_right_type(tiny_bundle):
    """The weights lie in the mapped file: neighbours there are neighbours in memory."""
    prior = tiny_bundle.load_prior(0)
    pointers = sorted(p.data_ptr() for p in prior.parameters())
    assert pointers[-1] - pointers[0] < tiny_bundle.weights_file("prior_0").stat().st_size


def test_loading_in_half_precision(tiny_bundle):
    prior = tiny_bundle.load_prior(0, Precision.FP16)
    full = tiny_bundle.load_prior(0)
    name = "core.transformer.layers.0.mlp.expand.weight"
    assert prior.state_dict()[name].dtype is torch.float16
    assert torch.equal(prior.state_dict()[name], full.state_dict()[name].half())
    assert prior.core.token_embedding.weight.dtype is torch.float32


def test_a_level_that_is_not_there(tiny_bundle):
    with pytest.raises(ConfigError, match="no prior for level 7"):
        tiny_bundle.load_prior(7)


def test_the_fingerprint_sees_every_file(copy, tiny_bundle):
    bundle = CheckpointBundle.open(copy)
    assert bundle.fingerprint() == tiny_bundle.fingerprint()
    path = bundle.weights_file("prior_1")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert bundle.fingerprint() != tiny_bundle.fingerprint()


def test_a_seed_makes_the_same_bundle(tmp_path):
    first, again, other = (write_random_bundle("tiny", tmp_path / str(i), seed=i // 2) for i in range(3))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_vocabularies_are_kept_and_checked(tmp_path):
    config = preset("tiny")
    parts = {"vqvae": partial(RandomTensors, "vqvae", config.vqvae, 0)}
    for prior in config.priors:
        parts[f"prior_{prior.level}"] = partial(RandomTensors, "prior", prior, 0)
    vocabulary = Vocabulary({LabelRules.NAMES: NameLists({"björk": 3}, {"rock": 2})})
    bundle = write_bundle(tmp_path / "a", BundleContents(config, parts, vocabulary=vocabulary))
    assert CheckpointBundle.open(bundle.folder).vocabulary == vocabulary
    too_large = Vocabulary({LabelRules.NAMES: NameLists({"björk": 16}, {})})
    with pytest.raises(LabelError, match="björk"):
        write_bundle(tmp_path / "b", BundleContents(config, parts, vocabulary=too_large))
    assert os.listdir(tmp_path) == ["a"]


def test_no_bundle(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint bundle.*jukebox-deploy import"):
        CheckpointBundle.open(tmp_path)
    with pytest.raises(CheckpointError, match="missing: no such folder"):
        CheckpointBundle.open(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file: not a folder"):
        CheckpointBundle.open(tmp_path / "file")


def test_another_version(copy):
    edit(copy, format_version=2)
    with pytest.raises(CheckpointError, match="format 2, but this version reads format 1"):
        CheckpointBundle.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"format_version": 1}', '{"format_version": 1, "config": 3}'])
def test_a_damaged_configuration(copy, text):
    (copy / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        CheckpointBundle.open(copy)


def test_a_configuration_of_another_model(copy):
    data = json.loads((copy / "config.json").read_text())["config"]
    data["vqvae"]["width"] = 17
    edit(copy, config=data)
    with pytest.raises(CheckpointError, match=r"vqvae\.safetensors: does not fit config\.json"):
        CheckpointBundle.open(copy)


def test_a_missing_and_a_truncated_file(copy):
    path = copy / "prior_0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"prior_0\.safetensors: not a complete safetensors file"):
        CheckpointBundle.open(copy)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"prior_0\.safetensors: no such file"):
        CheckpointBundle.open(copy)


def test_tensors_that_do_not_fit_are_not_left_as_a_bundle(tmp_path):
    config = preset("tiny")
    parts = {name: lambda: TensorTable({"a": torch.ones(1)}) for name in ("vqvae", "prior_0", "prior_1", "prior_2")}
    with pytest.raises(CheckpointError, match=r"vqvae do not fit.*\n  missing"):
        write_bundle(tmp_path / "out", BundleContents(config, parts))
    assert os.listdir(tmp_path) == []
