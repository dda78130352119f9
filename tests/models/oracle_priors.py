"""Priors with the original's weights, from goldens, and comparisons with what the original computed.

The hyper-parameters in a golden have the names of the specification, section 21.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from jukebox_deploy.attention_patterns import AttentionPattern, layer_patterns
from jukebox_deploy.checkpoints.names import OPENAI, file_names
from jukebox_deploy.config import (
    ConditionerConfig,
    LabelConfig,
    LabelRules,
    LyricsConfig,
    PriorConfig,
    TimingConfig,
    TransformerConfig,
    VQVAEConfig,
)
from jukebox_deploy.contract import Precision
from jukebox_deploy.labels.rows import SongLabels, window_labels
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from tests.models.oracle_names import ORDER_NUMBERS, vqvae_config

Golden = Mapping[str, Any]


def settings(golden: Golden) -> dict[str, Any]:
    """The golden's description of itself."""
    return json.loads(str(golden["cfg"]))


def prior_config(given: Mapping[str, Any], vqvae: VQVAEConfig) -> PriorConfig:
    """The configuration that a prior's hyper-parameters describe."""
    lyrics = _lyrics(given)
    prefix = lyrics.tokens if lyrics and not lyrics.encoder else 0
    return PriorConfig(
        level=given["level"],
        window=given["n_ctx"],
        codebook_size=vqvae.codebook_size,
        transformer=_transformer(given, "", given["n_ctx"] + prefix, lyrics),
        labels=_labels(given, timing=given["level"] == vqvae.levels - 1) if given["labels"] else None,
        lyrics=lyrics,
        conditioner=_conditioner(given, vqvae) if given["level"] < vqvae.levels - 1 else None,
        merged_decoder=given["merged_decoder"],
    )


def _transformer(
    given: Mapping[str, Any], prefix: str, context: int, lyrics: LyricsConfig | None = None
) -> TransformerConfig:
    """The music's stack (`prefix` empty) or the lyric encoder's ("prime_")."""
    name = prefix or "prior_"
    order = ORDER_NUMBERS[given[f"{prefix}attn_order"]]
    patterns = layer_patterns(order, given[f"{name}depth"])
    return TransformerConfig(
        context=context,
        width=given[f"{name}width"],
        depth=given[f"{name}depth"],
        heads=given[f"{prefix}heads"],
        order=order,
        blocks=given.get(f"{prefix}blocks"),
        attention_ratio=given[f"{prefix}m_attn"],
        mlp_ratio=given[f"{prefix}m_mlp"],
        prime_tokens=lyrics.tokens if lyrics and AttentionPattern.PRIME in patterns else 0,
        encoder_tokens=lyrics.tokens if lyrics and AttentionPattern.CROSS in patterns else 0,
        init_scale=given[f"{prefix}init_scale"],
    )


def _labels(given: Mapping[str, Any], *, timing: bool) -> LabelConfig:
    genres, artists = given["y_bins"]
    return LabelConfig(
        LabelRules.NAMES if given["labels_v3"] else LabelRules.WORDS,
        artists,
        genres,
        given["max_bow_genre_size"],
        TimingConfig(given["t_bins"], given["min_duration"], given["max_duration"]) if timing else None,
    )


def _lyrics(given: Mapping[str, Any]) -> LyricsConfig | None:
    if not given["use_tokens"]:
        return None
    encoder = None if given["single_enc_dec"] else _transformer(given, "prime_", given["n_tokens"])
    return LyricsConfig(
        given["n_tokens"],
        given["n_vocab"],
        given["prime_loss_fraction"],
        encoder,
        given["alignment_layer"],
        given["alignment_head"],
    )


def _conditioner(given: Mapping[str, Any], vqvae: VQVAEConfig) -> ConditionerConfig:
    above = given["level"] + 1
    return ConditionerConfig(
        given["cond_width"],
        given["cond_depth"],
        vqvae.downs[above],
        vqvae.strides[above],
        given["cond_dilation_growth_rate"],
        given["cond_dilation_cycle"],
        given["cond_m_conv"],
        given["cond_res_scale"],
    )


def golden_config(golden: Golden) -> PriorConfig:
    """The prior of a golden that holds one."""
    given = settings(golden)
    return prior_config(given["hps"], VQVAEConfig(**_vqvae_fields(given["vqvae"])))


def _vqvae_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    config = vqvae_config({"cfg": np.array(json.dumps(given))})
    return {name: getattr(config, name) for name in VQVAEConfig.__dataclass_fields__}


def our_weights(golden: Golden, config: PriorConfig, prefix: str = "sd/") -> dict[str, torch.Tensor]:
    """The original's weights of a prior under our names."""
    with torch.device("meta"):
        names = file_names(OPENAI, config, build_prior(config).state_dict())
    found = {}
    for ours, theirs in names.items():
        # The residual blocks of a conditioner have another name when its sets did not save memory.
        present = [key for name in theirs for key in (prefix + name, prefix + name.replace(".blocks.", ".model."))]
        found[ours] = torch.from_numpy(golden[next(key for key in present if key in golden)])
    return found


def load_prior(golden: Golden, config: PriorConfig, precision: Precision = Precision.FP32) -> Prior:
    """The prior with the original's weights, for inference."""
    prior = build_prior(config, precision)
    prior.load_state_dict(our_weights(golden, config))
    return prior.eval().requires_grad_(False)


def window_arrays(golden: Golden, config: PriorConfig) -> dict[str, np.ndarray]:
    """Inputs of the graphs `condition` and `lyrics` from the original's label rows and upper codes, `[B, ...]`."""
    arrays: dict[str, np.ndarray] = {}
    if "in/y" in golden:
        given = settings(golden)
        rows = [row_arrays(row, config, given["vqvae"]["sr"], given["raw_to_tokens"]) for row in golden["in/y"]]
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if "out/prime" in golden:  # the rows hold the window's lyrics, not the song's
        arrays["lyric_tokens"] = golden["out/prime"].astype(np.int64)
    if "in/z_cond" in golden:
        arrays["upper_codes"] = golden["in/z_cond"].astype(np.int64)
    return arrays


def row_arrays(row: np.ndarray, config: PriorConfig, rate: int, hop: int) -> dict[str, np.ndarray]:
    """A label row `[total, offset, length, artist, genres, lyrics]` through our label arithmetic."""
    assert config.labels is not None
    total, offset, _, artist, *rest = (int(value) for value in row)
    genres = tuple(genre for genre in rest[: config.labels.genre_slots] if genre >= 0)
    return dict(window_labels(config, rate, hop, SongLabels(total, offset, artist, genres), start=0).arrays())


def assert_rows_close(golden: Golden, key: str, found: torch.Tensor, relative: float = 1e-5) -> None:
    """Compare with the rows (axis 1) that the golden kept of an array, relative to its largest number."""
    step = settings(golden).get("row_steps", {}).get(key, 1)
    expected = golden[key]
    np.testing.assert_allclose(found.numpy()[:, ::step], expected, atol=relative * np.abs(expected).max(), rtol=0)
