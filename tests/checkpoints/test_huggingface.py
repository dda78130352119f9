"""Hugging Face's layout, against files that `transformers` itself wrote."""

from __future__ import annotations

import json
import os

import pytest
import torch

from jukebox_deploy.checkpoints.exporting import export_huggingface
from jukebox_deploy.checkpoints.huggingface import import_huggingface
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.files import sha256_of_file
from jukebox_deploy.presets import preset

TINY_TOP = {
    "hidden_size": 128,
    "num_layers": 16,
    "n_heads": 2,
    "n_ctx": 448,
    "blocks": 16,
    "attention_pattern": "enc_dec_with_lyrics",
    "nb_relevant_lyric_tokens": 64,
    "lyric_vocab_size": 79,
    "is_encoder_decoder": True,
}
TINY_UPSAMPLER = {
    "hidden_size": 96,
    "num_layers": 3,
    "n_heads": 1,
    "n_ctx": 1024,
    "blocks": 32,
    "attention_pattern": "raw_column_previous_row_attention",
    "nb_relevant_lyric_tokens": 0,
    "is_encoder_decoder": False,
    "res_conv_width": 32,
    "res_conv_depth": 4,
    "res_dilation_cycle": 4,
    "res_dilation_growth_rate": 3,
}
SHARED = {
    "merged_decoder": False,
    "metadata_dims": [16, 16],
    "max_nb_genres": 1,
    "music_vocab_size": 512,
    "mask": True,
}


@pytest.fixture(scope="module")
def model():
    """The preset `tiny`, built by `transformers`."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "JukeboxModel"):
        pytest.skip("this version of transformers has no Jukebox any more")
    torch.manual_seed(0)
    config = transformers.JukeboxConfig(
        vqvae_config={
            "nb_discrete_codes": 512,
            "embed_dim": 32,
            "multipliers": [1, 1, 1],
            "res_conv_depth": 2,
            "res_conv_width": 16,
        },
        prior_config_list=[SHARED | part for part in (TINY_TOP, TINY_UPSAMPLER, TINY_UPSAMPLER)],
        timing_dims=32,
        max_nb_genres=1,
    )
    model = transformers.JukeboxModel(config)
    for codebook in (name for name in model.state_dict() if name.endswith("codebook")):
        model.state_dict()[codebook].normal_()
    for tensor in model.state_dict().values():  # some are not initialised, and may be no numbers
        tensor.nan_to_num_(0.0, 0.0, 0.0)
    return model


def save(model, folder, *, safe: bool, shard: str = "2MB"):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # safetensors refuses shared memory
    model.save_pretrained(folder, state_dict=state, safe_serialization=safe, max_shard_size=shard)
    return folder


def exported_state(bundle, folder):
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for shard in export_huggingface(bundle, folder, shard_bytes=1_000_000):
        state |= load_file(shard)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(state)
    return state


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("shard", ["2MB", "1GB"], ids=["sharded", "single"])
def test_round_trip(model, tmp_path, safe, shard):
    bundle = import_huggingface(save(model, tmp_path / "hf", safe=safe, shard=shard), tmp_path / "bundle")
    assert bundle.config == preset("tiny")
    again, before = exported_state(bundle, tmp_path / "again"), model.state_dict()
    assert set(again) == set(before)
    for name, tensor in before.items():
        assert again[name].numpy().tobytes() == tensor.numpy().tobytes(), name


def test_transformers_loads_what_we_export(model, tiny_bundle, tmp_path):
    state = exported_state(tiny_bundle, tmp_path / "hf")
    result = model.load_state_dict(state, strict=True)
    assert not result.missing_keys
    codes = torch.arange(64)[None]
    ours = tiny_bundle.load_vqvae().decode(codes, 2)
    theirs = model.vqvae.decode([codes], start_level=2)
    assert torch.allclose(ours[:, 0], theirs[..., 0], atol=1e-5)


def test_through_openai_and_back(tiny_bundle, tmp_path):
    export_huggingface(tiny_bundle, tmp_path / "hf", shard_bytes=1_000_000)
    bundle = import_huggingface(tmp_path / "hf", tmp_path / "bundle")
    for component in tiny_bundle.components:
        assert sha256_of_file(bundle.weights_file(component)) == sha256_of_file(tiny_bundle.weights_file(component))


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    """A sharded folder that a test may damage."""
    export_huggingface(tiny_bundle, tmp_path / "hf", shard_bytes=1_000_000)
    return tmp_path / "hf"


def rewrite(folder, change):
    """Put all tensors into one file after `change` worked on them."""
    from safetensors.torch import load_file, save_file

    state: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        state |= load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    change(state)
    save_file(state, folder / "model.safetensors")


def test_one_name_of_a_tied_matrix_is_enough(folder, tiny_bundle, tmp_path):
    rewrite(folder, lambda state: state.pop("priors.0.prior.embed_tokens.weight"))
    bundle = import_huggingface(folder, tmp_path / "bundle")
    assert sha256_of_file(bundle.weights_file("prior_2")) == sha256_of_file(tiny_bundle.weights_file("prior_2"))


def test_a_part_of_a_system(folder, tmp_path):
    def drop(state):
        for name in [name for name in state if name.startswith("priors.1.")]:
            del state[name]

    rewrite(folder, drop)
    assert import_huggingface(folder, tmp_path / "bundle").components == ("vqvae", "prior_0", "prior_2")


def test_all_that_is_wrong_is_told_at_once(folder, tmp_path):
    def change(state):
        del state["vqvae.decoders.0.out.bias"]
        state["priors.2.prior.pos_emb.pos_emb"] = torch.ones(3, 3)

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        import_huggingface(folder, tmp_path / "out", "tiny")
    assert "missing (1): decoders.0.out.bias" in str(caught.value)
    assert "prior.pos_emb.pos_emb [3, 3] (expected [1024, 96])" in str(caught.value)
    nearest = r"\(vqvae\): these are not the tensors of any preset\. Compared with the nearest, vqvae of tiny, 1 tensor"
    with pytest.raises(CheckpointError, match=nearest) as caught:
        import_huggingface(folder, tmp_path / "out")
    assert "(prior_2): these are the tensors of preset tiny." in str(caught.value)
    assert os.listdir(tmp_path) == ["hf"]


def test_another_preset(folder, tmp_path):
    with pytest.raises(CheckpointError, match="of preset tiny"):
        import_huggingface(folder, tmp_path / "out", "small_single_lyrics")


def test_tensors_of_something_else(folder, tmp_path):
    rewrite(folder, lambda state: state.update({"bert.pooler": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"bert\.pooler"):
        import_huggingface(folder, tmp_path / "out")


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors\.index\.json, pytorch_model"):
        import_huggingface(tmp_path, tmp_path / "out")
    with pytest.raises(CheckpointError, match="nosuch: no such folder"):
        import_huggingface(tmp_path / "nosuch", tmp_path / "out")
    with pytest.raises(CheckpointError, match="not a folder"):
        import_huggingface(folder / "model.safetensors.index.json", tmp_path / "out")
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(CheckpointError, match=r"missing shards: [\w-]+00002[\w.-]+; get the whole"):
        import_huggingface(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\b", "", 3])
def test_an_index_cannot_lead_elsewhere(folder, tmp_path, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="not a file of this folder"):
        import_huggingface(folder, tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index(folder, tmp_path, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        import_huggingface(folder, tmp_path / "out")


def test_the_tokenizers_names_are_taken_along(folder, tmp_path):
    (folder / "artists.json").write_text(json.dumps({"unknown": 0, "björk": 3}))
    (folder / "genres.json").write_text(json.dumps({"unknown": 0, "rock": 2}))
    bundle = import_huggingface(folder, tmp_path / "bundle")
    labels = bundle.config.prior(2).labels
    assert labels is not None
    assert bundle.vocabulary.for_model(labels).artist("Björk").ids == (3,)
