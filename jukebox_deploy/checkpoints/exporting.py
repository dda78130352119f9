"""Export of a bundle's weights in the layouts of OpenAI and of Hugging Face.

The tensors are bit-identical to the imported ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import component_configs
from jukebox_deploy.checkpoints.huggingface import component_prefix
from jukebox_deploy.checkpoints.layout import file_layout
from jukebox_deploy.checkpoints.names import HUGGING_FACE, OPENAI
from jukebox_deploy.checkpoints.safetensors_writer import write_safetensors
from jukebox_deploy.checkpoints.tensors import TensorInfo, TensorSource
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.files import atomic_directory, atomic_path, write_json_atomic

SHARD_BYTES = 5 * 10**9
"""Maximum size of a shard of a Hugging Face checkpoint; a shard with a single tensor may be larger."""


def export_openai(bundle: CheckpointBundle, out: Path) -> list[Path]:
    """Write `vqvae.pth.tar` and `prior_level_N.pth.tar`, in the serialisation format of the released files.

    Returns the files. Raises `JukeboxError` if `out` is not empty or there is no disk space.
    """
    with atomic_directory(out) as folder:
        for component, config in component_configs(bundle.config).items():
            source = bundle.tensors(component)
            names = file_layout(OPENAI, config).names
            model = {theirs: source.load(ours) for ours, aliases in names.items() for theirs in aliases}
            settings = {"level": config.level} if isinstance(config, PriorConfig) else {}
            checkpoint = {"model": model, "step": 0, "hps": settings, "opt": None}
            with atomic_path(folder / _openai_file(component)) as path, path.open("wb") as file:
                # With a plain writer, a full disk raises `OSError`; torch's own writer raises another error.
                torch.save(checkpoint, _Writer(file), _use_new_zipfile_serialization=False)  # type: ignore[arg-type]
    return [out / _openai_file(component) for component in bundle.components]


def export_huggingface(bundle: CheckpointBundle, out: Path, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write safetensors shards and their index, under the names of `JukeboxModel`.

    Returns the shards. Raises `JukeboxError` if `out` is not empty or there is no disk space.
    """
    shards = _plan_shards(_huggingface_tensors(bundle), shard_bytes)
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    total = sum(info.bytes for shard in shards for info in shard.infos.values())
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard.origins},
    }
    with atomic_directory(out) as folder:
        for file, shard in zip(files, shards, strict=True):
            write_safetensors(folder / file, shard, {"format": "pt"})
        write_json_atomic(folder / "model.safetensors.index.json", index)
    return [out / file for file in files]


@dataclass(frozen=True)
class _Shard:
    """Tensors of several components under Hugging Face's names."""

    origins: Mapping[str, tuple[TensorSource, str]]  # their name -> the source of the tensor, and our name in it

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        return {name: source.infos[ours] for name, (source, ours) in self.origins.items()}

    def load(self, name: str) -> Tensor:
        source, ours = self.origins[name]
        return source.load(ours)


class _Writer:
    """A file object that only allows writing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _openai_file(component: str) -> str:
    return f"{component.replace('prior_', 'prior_level_')}.pth.tar"


def _huggingface_tensors(bundle: CheckpointBundle) -> dict[str, tuple[TensorSource, str]]:
    tensors: dict[str, tuple[TensorSource, str]] = {}
    for component, config in component_configs(bundle.config).items():
        source = bundle.tensors(component)
        prefix = component_prefix(component, bundle.config.vqvae.levels)
        for ours, aliases in file_layout(HUGGING_FACE, config).names.items():
            tensors |= {prefix + theirs: (source, ours) for theirs in aliases}
    return tensors


def _plan_shards(tensors: Mapping[str, tuple[TensorSource, str]], shard_bytes: int) -> list[_Shard]:
    """Distribute tensors over shards in order, filling one shard after another."""
    shards: list[dict[str, tuple[TensorSource, str]]] = [{}]
    room = shard_bytes
    for name, (source, ours) in tensors.items():
        size = source.infos[ours].bytes
        if size > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = (source, ours)
        room -= size
    return [_Shard(shard) for shard in shards]
