"""Names of our tensors in the files of OpenAI and of Hugging Face.

The rules map our names to the publishers'; the inverse is obtained by inverting the resulting dictionary. Values and
shapes are the same everywhere; nothing is transposed. Source: specification 15.2, 15.3 and 16.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from jukebox_deploy.config import PriorConfig, VQVAEConfig

Rules = tuple[tuple[str, str], ...]
"""Pairs of our name and theirs, with fields in braces. `{level}`, `{block}`, `{stage}`, `{unit}` and
`{layer}` are indices; `{part}` is weight or bias; the other fields are words of ours that the dialect
translates. Their name may also use `{letter}` (w or b), `{next}` (stage + 1), `{even}` and `{odd}`
(2 stage, 2 stage + 1), and `{last}` (the number of stages of the block)."""

_FIELDS = {
    **dict.fromkeys(("level", "block", "stage", "unit", "layer"), r"\d+"),
    "part": r"weight|bias",
    "core": r"core|lyric_encoder\.core",
    "convolution": r"inner|outer",
    "projection": r"attention\.(?:query_key_value|query|encoder_key_value|output)|mlp\.(?:expand|contract)",
    "norm": r"attention_norm|mlp_norm",
    "name": r"artist|genre",
    "bin": r"total|absolute|relative",
}
_SHARED_WORDS = {
    "attention.query_key_value": "attn.c_attn",
    "attention.query": "attn.c_attn",
    "attention.encoder_key_value": "attn.c_enc_kv",
    "attention.output": "attn.c_proj",
    "mlp.expand": "mlp.c_fc",
    "mlp.contract": "mlp.c_proj",
    "artist": "artist_emb",
    "genre": "bow_genre_emb",
    "total": "total_length_emb",
    "absolute": "absolute_pos_emb",
    "relative": "relative_pos_emb",
}


@dataclass(frozen=True, eq=False)  # only the two instances below exist; they are compared by identity
class Dialect:
    """A publisher's names of the tensors of a VQ-VAE and of a prior."""

    name: str
    words: Mapping[str, str]
    vqvae: Rules
    prior: Rules
    tied_output: str  # the second name of the token embedding of a tied prior


OPENAI = Dialect(
    name="OpenAI",
    words={
        **_SHARED_WORDS,
        "core": "prior",
        "lyric_encoder.core": "prime_prior",
        "inner": "model.1",
        "outer": "model.3",
        "attention_norm": "ln_0",
        "mlp_norm": "ln_1",
    },
    vqvae=(
        ("codebooks.{level}.codes", "bottleneck.level_blocks.{level}.k"),
        (
            "encoders.{level}.blocks.{block}.stages.{stage}.convolution.{part}",
            "encoders.{level}.level_blocks.{block}.model.{stage}.0.{part}",
        ),
        (
            "encoders.{level}.blocks.{block}.stages.{stage}.residual.blocks.{unit}.{convolution}.{part}",
            "encoders.{level}.level_blocks.{block}.model.{stage}.1.model.{unit}.{convolution}.{part}",
        ),
        (
            "encoders.{level}.blocks.{block}.output.{part}",
            "encoders.{level}.level_blocks.{block}.model.{last}.{part}",
        ),
        (
            "decoders.{level}.blocks.{block}.input.{part}",
            "decoders.{level}.level_blocks.{block}.model.0.{part}",
        ),
        (
            "decoders.{level}.blocks.{block}.stages.{stage}.residual.blocks.{unit}.{convolution}.{part}",
            "decoders.{level}.level_blocks.{block}.model.{next}.0.model.{unit}.{convolution}.{part}",
        ),
        (
            "decoders.{level}.blocks.{block}.stages.{stage}.convolution.{part}",
            "decoders.{level}.level_blocks.{block}.model.{next}.1.{part}",
        ),
        ("decoders.{level}.output.{part}", "decoders.{level}.out.{part}"),
    ),
    prior=(
        ("{core}.token_embedding.weight", "{core}.x_emb.weight"),
        ("{core}.position_embedding", "{core}.pos_emb.pos_emb"),
        ("{core}.start_token", "{core}.start_token"),
        ("core.output.weight", "prior.x_out.weight"),
        (
            "{core}.transformer.layers.{layer}.{projection}.{part}",
            "{core}.transformer._attn_mods.{layer}.{projection}.{letter}",
        ),
        ("{core}.transformer.layers.{layer}.{norm}.{part}", "{core}.transformer._attn_mods.{layer}.{norm}.{part}"),
        ("labels.{name}.weight", "y_emb.{name}.emb.weight"),
        ("labels.{bin}.weight", "y_emb.{bin}.emb.weight"),
        ("conditioner.embedding.weight", "conditioner_blocks.0.x_emb.weight"),
        ("conditioner.norm.{part}", "conditioner_blocks.0.ln.{part}"),
        ("conditioner.upsampler.input.{part}", "conditioner_blocks.0.cond.model.0.{part}"),
        (
            "conditioner.upsampler.stages.{stage}.residual.blocks.{unit}.{convolution}.{part}",
            "conditioner_blocks.0.cond.model.{next}.0.blocks.{unit}.{convolution}.{part}",
        ),
        (
            "conditioner.upsampler.stages.{stage}.convolution.{part}",
            "conditioner_blocks.0.cond.model.{next}.1.{part}",
        ),
        ("lyric_encoder.projection.{part}", "prime_state_proj.{letter}"),
        ("lyric_encoder.norm.{part}", "prime_state_ln.{part}"),
        ("lyric_encoder.output.weight", "prime_x_out.weight"),
    ),
    tied_output="prior.x_out.weight",
)

HUGGING_FACE = Dialect(
    name="Hugging Face",
    words={
        **_SHARED_WORDS,
        "core": "prior",
        "lyric_encoder.core": "encoder",
        "inner": "conv1d_1",
        "outer": "conv1d_2",
        "attention_norm": "layer_norm_0",
        "mlp_norm": "layer_norm_1",
    },
    vqvae=(
        ("codebooks.{level}.codes", "bottleneck.level_blocks.{level}.codebook"),
        (
            "encoders.{level}.blocks.{block}.stages.{stage}.convolution.{part}",
            "encoders.{level}.level_blocks.{block}.downsample_block.{even}.{part}",
        ),
        (
            "encoders.{level}.blocks.{block}.stages.{stage}.residual.blocks.{unit}.{convolution}.{part}",
            "encoders.{level}.level_blocks.{block}.downsample_block.{odd}.resnet_block.{unit}.{convolution}.{part}",
        ),
        ("encoders.{level}.blocks.{block}.output.{part}", "encoders.{level}.level_blocks.{block}.proj_out.{part}"),
        ("decoders.{level}.blocks.{block}.input.{part}", "decoders.{level}.level_blocks.{block}.proj_in.{part}"),
        (
            "decoders.{level}.blocks.{block}.stages.{stage}.residual.blocks.{unit}.{convolution}.{part}",
            "decoders.{level}.level_blocks.{block}.upsample_block.{even}.resnet_block.{unit}.{convolution}.{part}",
        ),
        (
            "decoders.{level}.blocks.{block}.stages.{stage}.convolution.{part}",
            "decoders.{level}.level_blocks.{block}.upsample_block.{odd}.{part}",
        ),
        ("decoders.{level}.output.{part}", "decoders.{level}.out.{part}"),
    ),
    prior=(
        ("{core}.token_embedding.weight", "{core}.embed_tokens.weight"),
        ("{core}.position_embedding", "{core}.pos_emb.pos_emb"),
        ("{core}.start_token", "{core}.start_token"),
        ("core.output.weight", "prior.fc_proj_out.weight"),
        (
            "{core}.transformer.layers.{layer}.{projection}.{part}",
            "{core}.transformer._attn_mods.{layer}.{projection}.{part}",
        ),
        ("{core}.transformer.layers.{layer}.{norm}.{part}", "{core}.transformer._attn_mods.{layer}.{norm}.{part}"),
        ("labels.{name}.weight", "metadata_embedding.{name}.weight"),
        ("labels.{bin}.weight", "metadata_embedding.{bin}.emb.weight"),
        ("conditioner.embedding.weight", "conditioner_blocks.embed_tokens.weight"),
        ("conditioner.norm.{part}", "conditioner_blocks.layer_norm.{part}"),
        ("conditioner.upsampler.input.{part}", "conditioner_blocks.upsampler.proj_in.{part}"),
        (
            "conditioner.upsampler.stages.{stage}.residual.blocks.{unit}.{convolution}.{part}",
            "conditioner_blocks.upsampler.upsample_block.{even}.resnet_block.{unit}.{convolution}.{part}",
        ),
        (
            "conditioner.upsampler.stages.{stage}.convolution.{part}",
            "conditioner_blocks.upsampler.upsample_block.{odd}.{part}",
        ),
        ("lyric_encoder.projection.{part}", "encoder.proj_in.{part}"),
        ("lyric_encoder.norm.{part}", "encoder.final_layer_norm.{part}"),
        ("lyric_encoder.output.weight", "encoder.lm_head.weight"),
    ),
    tied_output="prior.fc_proj_out.weight",
)

FileNames = dict[str, tuple[str, ...]]
"""Our name -> their names: one, or two for the embedding of a tied prior."""


def file_names(dialect: Dialect, config: VQVAEConfig | PriorConfig, names: Iterable[str]) -> FileNames:
    """Return the publisher's names for our tensors `names` of one VQ-VAE or prior.

    Raises `KeyError` for a name that no rule matches, which would be a gap in the tables above.
    """
    if isinstance(config, VQVAEConfig):
        return {name: (_rename(name, dialect, dialect.vqvae, config.downs),) for name in names}
    renamed: FileNames = {name: (_rename(name, dialect, dialect.prior),) for name in names}
    if config.tied_output:
        renamed["core.token_embedding.weight"] += (dialect.tied_output,)
    return renamed


def _rename(name: str, dialect: Dialect, rules: Rules, stages: tuple[int, ...] = ()) -> str:
    """Apply the rule that matches; `stages` are the numbers of strided stages of the blocks."""
    for ours, theirs in rules:
        if match := _pattern(ours).fullmatch(name):
            return theirs.format(**_fields(match.groupdict(), dialect, stages))
    raise KeyError(f"no {dialect.name} name for our tensor {name!r}")


@cache
def _pattern(ours: str) -> re.Pattern[str]:
    """Convert our side of a rule to a regular expression with a group for each field."""
    pieces = re.split(r"\{(\w+)\}", ours)  # alternates between text and field names
    return re.compile("".join(f"(?P<{p}>{_FIELDS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(pieces)))


def _fields(found: Mapping[str, str], dialect: Dialect, stages: tuple[int, ...]) -> dict[str, object]:
    """Return the values of all fields that the publisher's side of a rule may use."""
    fields: dict[str, object] = {field: dialect.words.get(value, value) for field, value in found.items()}
    if "part" in found:
        fields["letter"] = found["part"][0]
    if "stage" in found:
        stage = int(found["stage"])
        fields |= {"next": stage + 1, "even": 2 * stage, "odd": 2 * stage + 1}
    if "block" in found:
        fields["last"] = stages[int(found["block"])]
    return fields
