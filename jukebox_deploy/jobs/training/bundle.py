"""Checkpoint bundles of trained parts, and the combination of several into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT, prior_component
from jukebox_deploy.checkpoints.tensors import TensorInfo, TensorSource, TensorTable
from jukebox_deploy.config import JukeboxConfig, LabelRules
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.files import replaced_directory
from jukebox_deploy.jobs.sampling_advice import NO_ADVICE, SamplingAdvice, bundle_advice, joined_advice
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary
from jukebox_deploy.training.run_folder import RunRecord, record_numbers


def write_trained_bundle(
    out: Path,
    config: JukeboxConfig,
    weights: Mapping[str, Mapping[str, Tensor]],
    record: RunRecord,
    vocabulary: Vocabulary | None = None,
    began_with: Mapping[str, Any] | None = None,
    advice: SamplingAdvice = NO_ADVICE,
) -> CheckpointBundle:
    """Write the bundle of a run; a bundle that is already at `out` is replaced once the new one is complete.

    Args:
        out: folder of the bundle.
        config: configuration of the VQ-VAE and of the prior, if one was trained.
        weights: tensors by name, by component.
        record: the run.
        vocabulary: lists of artists and genres that the prior was trained with.
        began_with: origin of the weights that were fine-tuned, see `component_source`.
        advice: recommended sampling settings of the model that was fine-tuned.

    Raises:
        CheckpointError: for tensors that do not fit the configuration.
        JukeboxError: if there is no disk space or no permission.
    """
    components: dict[str, Callable[[], TensorSource]] = {
        name: partial(TensorTable, tensors) for name, tensors in weights.items()
    }
    with replaced_directory(out) as fresh:
        source = record_numbers(record) | ({} if began_with is None else {"began_with": dict(began_with)})
        write_bundle(fresh, BundleContents(config, components, source, vocabulary or Vocabulary(), advice.as_file()))
    return CheckpointBundle.open(out)


def component_source(bundle: CheckpointBundle, component: str) -> Mapping[str, Any]:
    """Return the origin of a component's weights; in a joined bundle, that in the bundle which it was taken from."""
    source: Mapping[str, Any] = bundle.source.get("parts", {}).get(component, bundle.source)
    return source


@dataclass(frozen=True)
class CastTensors:
    """A source whose tensors are converted to another dtype."""

    source: TensorSource
    dtype: torch.dtype

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and new dtype of every tensor, by name."""
        return {name: TensorInfo(info.shape, self.dtype) for name, info in self.source.infos.items()}

    def load(self, name: str) -> Tensor:
        """Load and convert a tensor."""
        return self.source.load(name).to(self.dtype)


def join_bundles(
    bundles: Sequence[CheckpointBundle],
    out: Path,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    *,
    later_wins: bool = False,
) -> CheckpointBundle:
    """Join priors that were trained separately, and their VQ-VAE, in one bundle.

    Args:
        bundles: one or more bundles; those of priors have a copy of the VQ-VAE.
        out: folder of the new bundle.
        name: name of the model; default: that of the bundle with the VQ-VAE.
        dtype: dtype of all tensors in the new bundle; default: unchanged.
        later_wins: if two bundles have a prior of the same level, take the later one instead of raising an error.

    Raises:
        CheckpointError: if the VQ-VAEs or lists of names differ, or two bundles have a prior of the same level.
        SamplingError: if the recommended sampling settings of a bundle are invalid.
        JukeboxError: if `out` is not empty, or there is no disk space.
    """
    # A bundle without priors comes from the training of the VQ-VAE itself, so it has the record of how that was made.
    first = next((bundle for bundle in bundles if not bundle.config.priors), bundles[0])
    owners = {VQVAE_COMPONENT: first}
    for bundle in bundles:
        _require_same_vqvae(first, bundle)
        for component in bundle.components[1:]:
            if component in owners and not later_wins:
                raise CheckpointError(
                    f"{bundle.folder} and {owners[component].folder} both have {component}; leave out one of them."
                )
            owners[component] = bundle
    priors = {prior.level: prior for bundle in bundles for prior in bundle.config.priors}
    ordered = tuple(priors[level] for level in sorted(priors))
    config = replace(first.config, name=name or first.config.name, priors=ordered)
    components = {part: _opener(bundle, part, dtype) for part, bundle in owners.items()}
    source = {
        "format": "joined",
        "parts": {part: dict(component_source(bundle, part)) for part, bundle in owners.items()},
    }
    advice = joined_advice(
        config.vqvae.levels, {level: bundle_advice(owners[prior_component(level)]) for level in priors}
    )
    contents = BundleContents(config, components, source, _common_vocabulary(bundles), advice.as_file())
    return write_bundle(out, contents)


def _opener(bundle: CheckpointBundle, component: str, dtype: torch.dtype | None) -> Callable[[], TensorSource]:
    """Return a function that opens the tensors of a component, converted to `dtype` if it is given."""

    def open_tensors() -> TensorSource:
        tensors = bundle.tensors(component)
        return tensors if dtype is None else CastTensors(tensors, dtype)

    return open_tensors


def _require_same_vqvae(owner: CheckpointBundle, other: CheckpointBundle) -> None:
    """Raise `CheckpointError` if the levels of the VQ-VAE that `other` uses are not the same as in `owner`."""
    mine, theirs = owner.tensors(VQVAE_COMPONENT), other.tensors(VQVAE_COMPONENT)
    levels = _levels_in_use(other)
    names = [name for name in mine.infos if int(name.split(".")[1]) in levels]
    same = owner.config.vqvae == other.config.vqvae and all(
        torch.equal(mine.load(name), theirs.load(name)) for name in names
    )
    if not same:
        raise CheckpointError(
            f"{other.folder} and {owner.folder} have different VQ-VAEs, so the codes of one mean nothing to the other. "
            "Train all priors on the codes of one VQ-VAE."
        )


def _levels_in_use(bundle: CheckpointBundle) -> set[int]:
    """Return the levels of the VQ-VAE whose codes the priors of a bundle use, or all levels if there are no priors.

    Levels share no weights, so the other levels may differ between bundles.
    """
    vqvae, priors = bundle.config.vqvae, bundle.config.priors
    if not priors:
        return set(range(vqvae.levels))
    return {level for prior in priors for level in (prior.level, prior.level + 1) if level < vqvae.levels}


def _common_vocabulary(bundles: Sequence[CheckpointBundle]) -> Vocabulary:
    """Return the lists of names of all bundles; raise `CheckpointError` if two bundles have different ones."""
    lists: dict[LabelRules, NameLists] = {}
    for bundle in bundles:
        for rules, names in bundle.vocabulary.lists.items():
            if lists.setdefault(rules, names) != names:
                raise CheckpointError(
                    f"{bundle.folder}: its lists of artists and genres ({rules}) differ from those of another bundle. "
                    "Train all priors with one --vocabulary."
                )
    return Vocabulary(lists)
