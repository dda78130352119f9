"""Import of checkpoints in the layout of Hugging Face's `JukeboxModel`.

Source: specification section 16. The folder's `config.json` is ignored, because published values are partly wrong
(16.3); the model is identified by its tensors.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT, prior_component
from jukebox_deploy.checkpoints.layout import Shapes
from jukebox_deploy.checkpoints.matching import (
    compare,
    explain_mismatch,
    explain_unknown,
    layouts,
    one_system,
    resolve,
    restrict,
)
from jukebox_deploy.checkpoints.names import HUGGING_FACE, FileNames
from jukebox_deploy.checkpoints.reading import SafetensorsFile, read_torch_file, state_tensors
from jukebox_deploy.checkpoints.safetensors_header import check_file
from jukebox_deploy.checkpoints.tensors import RenamedTensors, TensorInfo, TensorSource, TensorTable
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.files import sha256_of_file
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.labels.vocabulary_files import find_vocabulary
from jukebox_deploy.listing import listed, words_of
from jukebox_deploy.presets import PRESETS

_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_COMPONENT_PREFIX = re.compile(r"(vqvae|priors\.\d+)\.")


def component_prefix(component: str, levels: int) -> str:
    """Return the prefix of the names of a component's tensors; Hugging Face numbers the priors from the top level."""
    if component == VQVAE_COMPONENT:
        return "vqvae."
    return f"priors.{levels - 1 - int(component.removeprefix('prior_'))}."


@dataclass(frozen=True)
class ShardedTensors:
    """The tensors of several files as one source."""

    files: Mapping[str, TensorSource]  # tensor name -> the file that contains it

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by name."""
        return {name: file.infos[name] for name, file in self.files.items()}

    def load(self, name: str) -> Tensor:
        """Load the values of one tensor."""
        return self.files[name].load(name)


def import_huggingface(
    folder: Path,
    out: Path,
    preset: str | JukeboxConfig | None = None,
    vocabulary: Vocabulary | None = None,
) -> CheckpointBundle:
    """Import a folder with safetensors or `.bin` files (one file, or shards with an index) as a checkpoint bundle.

    Args:
        folder: the output of `JukeboxModel.save_pretrained`, or a copy of a published repository.
        out: the bundle's folder; must be new or empty.
        preset: name of a preset, or a configuration; `None` finds the preset that matches.
        vocabulary: names of artists and genres; `None` reads the lists in the folder, if there are any.

    Raises:
        CheckpointError: if files cannot be read, or do not match the preset.
        ConfigError: if there is no preset of that name.
        LabelError: if lists of names are invalid, or of another model.
        JukeboxError: if `out` is not empty, or there is no disk space.
    """
    folder = Path(folder)
    shards = _find_shards(folder)
    places = _locate_tensors(folder, shards)
    groups = _split(folder, places)
    config = _recognise(folder, groups) if preset is None else resolve(preset)
    _require_match(folder, groups, config)
    config = restrict(config, groups)
    levels = config.vqvae.levels
    names = {
        component: _with_prefix(layout.names, component_prefix(component, levels))
        for component, layout in layouts(config, HUGGING_FACE).items()
    }
    return write_bundle(
        out,
        BundleContents(
            config,
            components={component: partial(_open, folder, places, part) for component, part in names.items()},
            source={"format": "huggingface", "files": [_record(folder / name) for name in sorted(set(shards))]},
            vocabulary=vocabulary or find_vocabulary(folder) or Vocabulary(),
        ),
    )


@dataclass(frozen=True)
class _Place:
    """Shard of a tensor, and its shape and dtype."""

    shard: str
    info: TensorInfo


def _find_shards(folder: Path) -> list[str]:
    """Return the names of the weight files: those of the index, or the single one."""
    for name in _INDICES:
        if (folder / name).is_file():
            return _read_index(folder / name)
    for name in _SINGLE_FILES:
        if (folder / name).is_file():
            return [name]
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: {'not a' if folder.exists() else 'no such'} folder.")
    expected = ", ".join((*_INDICES, *_SINGLE_FILES))
    raise CheckpointError(f"{folder}: no Hugging Face checkpoint here; expected one of {expected}.")


def _read_index(path: Path) -> list[str]:
    try:
        files = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an index of shards: it has no valid weight_map ({error!r}).") from error
    for name in files:
        if not isinstance(name, str) or not name or PurePosixPath(name).name != name or "\\" in name:
            raise CheckpointError(f"{path}: names the shard {name!r}, which is not a file of this folder.")
    if absent := sorted(name for name in files if not (path.parent / name).is_file()):
        raise CheckpointError(f"{path}: missing shards: {words_of(absent)}; get the whole repository.")
    return sorted(files)


def _locate_tensors(folder: Path, shards: list[str]) -> dict[str, _Place]:
    """Find the tensors of all shards without reading their values."""
    places: dict[str, _Place] = {}
    for shard in shards:
        infos = _open_file(folder / shard, values=False).infos
        if twice := sorted(set(places) & set(infos)):
            raise CheckpointError(
                f"{folder / shard}: has tensors of another shard, too: {listed(twice, 5)}. Get the files again."
            )
        places |= {name: _Place(shard, info) for name, info in infos.items()}
    return places


def _open_file(path: Path, *, values: bool) -> TensorSource:
    if check_file(path).suffix == ".safetensors":
        return SafetensorsFile(path, mapped=False)
    return TensorTable(state_tensors(path, read_torch_file(path, values=values)))


def _open(folder: Path, places: Mapping[str, _Place], names: FileNames) -> RenamedTensors:
    """Open a component's shards. Older `.bin` files, which are not zip files, are read as a whole."""
    wanted = {name: places[name].shard for aliases in names.values() for name in aliases if name in places}
    files = {shard: _open_file(folder / shard, values=True) for shard in set(wanted.values())}
    return RenamedTensors(ShardedTensors({name: files[shard] for name, shard in wanted.items()}), names)


def _split(folder: Path, places: Mapping[str, _Place]) -> dict[str, Shapes]:
    """Return the shapes by component and name within it. The number of levels is that of the codebooks."""
    groups: defaultdict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, place in places.items():
        if not (prefix := _COMPONENT_PREFIX.match(name)):
            raise CheckpointError(
                f"{folder}: {name} belongs neither to the VQ-VAE (vqvae.) nor to a prior (priors.N.); expected the "
                "tensors of a `JukeboxModel`."
            )
        groups[prefix[1]][name.removeprefix(prefix[0])] = place.info.shape
    levels = sum(name.endswith(".codebook") for name in groups["vqvae"])
    components = {prefix: _component(prefix, levels) for prefix in groups}
    return {component: groups[prefix] for prefix, component in components.items()}


def _component(prefix: str, levels: int) -> str:
    if prefix == "vqvae":
        return VQVAE_COMPONENT
    return prior_component(levels - 1 - int(prefix.removeprefix("priors.")))


def _recognise(folder: Path, groups: Mapping[str, Shapes]) -> JukeboxConfig:
    """Return the preset that all components belong to."""
    candidates = {name: restrict(config, groups) for name, config in PRESETS.items() if not _problems(groups, config)}
    if not candidates:
        labelled = {f"{folder} ({component})": found for component, found in groups.items()}
        raise CheckpointError(explain_unknown(labelled, HUGGING_FACE))
    return PRESETS[one_system(candidates, str(folder))]


def _require_match(folder: Path, groups: Mapping[str, Shapes], config: JukeboxConfig) -> None:
    """Raise one `CheckpointError` with the problems of all components that do not match the configuration."""
    if problems := _problems(groups, config):
        raise CheckpointError(
            "\n".join(
                explain_mismatch(f"{folder} ({component})", groups[component], config, HUGGING_FACE, nearest)
                for component, nearest in problems.items()
            )
        )


def _problems(groups: Mapping[str, Shapes], config: JukeboxConfig) -> dict[str, str | None]:
    """Return the components that do not match, each with the component of `config` to compare it with (`None`: any)."""
    expected = layouts(config, HUGGING_FACE)
    problems: dict[str, str | None] = {name: None for name in groups if name not in expected}
    problems |= {name: name for name in groups if name in expected and compare(groups[name], expected[name])}
    return problems


def _with_prefix(names: Mapping[str, tuple[str, ...]], prefix: str) -> FileNames:
    return {ours: tuple(prefix + theirs for theirs in aliases) for ours, aliases in names.items()}


def _record(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
