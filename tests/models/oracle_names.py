"""Arrays computed by the original implementation, and where its weights go in our modules.

The names are those of the specification, 15.2 and 15.3.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.config import VQVAEConfig

GOLDENS = Path(__file__).parent.parent / "goldens"

ORDER_NUMBERS: dict[int, AttentionOrder] = dict(enumerate(AttentionOrder))
"""Orders of attention functions by the numbers of the original hyper-parameters (`attn_order`)."""

_STACK = r"(?:model|blocks)"
_RULES = (
    (r"bottleneck\.level_blocks\.(\d+)\.k", r"codebooks.\1.codes"),
    (r"(encoders\.\d+)\.level_blocks\.(\d+)\.model\.(\d+)\.0\.(\w+)", r"\1.blocks.\2.stages.\3.convolution.\4"),
    (
        rf"(encoders\.\d+)\.level_blocks\.(\d+)\.model\.(\d+)\.1\.{_STACK}\.(\d+)\.model\.([13])\.(\w+)",
        r"\1.blocks.\2.stages.\3.residual.blocks.\4.<\5>.\6",
    ),
    (r"(encoders\.\d+)\.level_blocks\.(\d+)\.model\.\d+\.(\w+)", r"\1.blocks.\2.output.\3"),
    (r"(decoders\.\d+)\.level_blocks\.(\d+)\.model\.0\.(\w+)", r"\1.blocks.\2.input.\3"),
    (r"(decoders\.\d+)\.level_blocks\.(\d+)\.model\.(\d+)\.1\.(\w+)", r"\1.blocks.\2.stages.{\3}.convolution.\4"),
    (
        rf"(decoders\.\d+)\.level_blocks\.(\d+)\.model\.(\d+)\.0\.{_STACK}\.(\d+)\.model\.([13])\.(\w+)",
        r"\1.blocks.\2.stages.{\3}.residual.blocks.\4.<\5>.\6",
    ),
    (r"(decoders\.\d+)\.out\.(\w+)", r"\1.output.\2"),
    (r"y_emb\.artist_emb\.emb\.weight", "labels.artist.weight"),
    (r"y_emb\.bow_genre_emb\.emb\.weight", "labels.genre.weight"),
    (r"y_emb\.total_length_emb\.emb\.weight", "labels.total.weight"),
    (r"y_emb\.absolute_pos_emb\.emb\.weight", "labels.absolute.weight"),
    (r"y_emb\.relative_pos_emb\.emb\.weight", "labels.relative.weight"),
    (r"conditioner_blocks\.0\.x_emb\.weight", "conditioner.embedding.weight"),
    (r"conditioner_blocks\.0\.ln\.(\w+)", r"conditioner.norm.\1"),
    (r"conditioner_blocks\.0\.cond\.model\.0\.(\w+)", r"conditioner.upsampler.input.\1"),
    (r"conditioner_blocks\.0\.cond\.model\.(\d+)\.1\.(\w+)", r"conditioner.upsampler.stages.{\1}.convolution.\2"),
    (
        rf"conditioner_blocks\.0\.cond\.model\.(\d+)\.0\.{_STACK}\.(\d+)\.model\.([13])\.(\w+)",
        r"conditioner.upsampler.stages.{\1}.residual.blocks.\2.<\3>.\4",
    ),
)


def our_name(original: str) -> str:
    """Our name of an original parameter."""
    for pattern, replacement in _RULES:
        if match := re.fullmatch(pattern, original):
            name = match.expand(replacement).replace("<1>", "inner").replace("<3>", "outer")
            return re.sub(r"\{(\d+)\}", lambda stage: str(int(stage[1]) - 1), name)
    raise KeyError(original)


def load_golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of one file; weights are packed into one vector, scalars into one JSON text.

    Some files have the four bytes of all weights one after the other, which packs better.
    """
    with np.load(GOLDENS / name) as file:
        arrays = {key: file[key] for key in file.files}
    if "weight_planes" in arrays:
        arrays["weights"] = np.ascontiguousarray(arrays.pop("weight_planes").T).view(np.float32)[:, 0]
    if "weights" in arrays:
        shapes = json.loads(str(arrays.pop("weight_shapes")))
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        pieces = np.split(arrays.pop("weights"), ends[:-1])
        arrays.update({key: piece.reshape(shapes[key]) for key, piece in zip(shapes, pieces, strict=True)})
    arrays.update({key: np.float64(value) for key, value in json.loads(str(arrays.pop("scalars"))).items()})
    return arrays


def our_state_dict(golden: dict[str, np.ndarray], prefix: str = "sd/") -> dict[str, torch.Tensor]:
    """The original's weights under our names."""
    return {
        our_name(key.removeprefix(prefix)): torch.from_numpy(value)
        for key, value in golden.items()
        if key.startswith(prefix)
    }


def vqvae_config(golden: dict[str, np.ndarray]) -> VQVAEConfig:
    """The configuration that the original's hyper-parameters describe."""
    given = json.loads(str(golden["cfg"]))
    return VQVAEConfig(
        sample_rate=given["sr"],
        downs=tuple(given["downs_t"]),
        strides=tuple(given["strides_t"]),
        multipliers=tuple(given["hvqvae_multipliers"] or [1] * given["levels"]),
        width=given["width"],
        depth=given["depth"],
        embedding_width=given["emb_width"],
        codebook_size=given["l_bins"],
        convolution_ratio=given["m_conv"],
        dilation_growth=given["dilation_growth_rate"],
        dilation_cycle=given["dilation_cycle"],
        reverse_decoder_dilation=given["vqvae_reverse_decoder_dilation"],
    )


def audio(golden: dict[str, np.ndarray], key: str) -> torch.Tensor:
    """Audio `[B, 1, T]`; the original's is `[B, T, 1]`."""
    return torch.from_numpy(golden[key]).transpose(1, 2).contiguous()


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference over the largest expected magnitude."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())
