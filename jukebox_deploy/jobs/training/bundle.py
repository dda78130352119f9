"""Checkpoint bundles of what was trained, and of parts that were trained apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.layout import VQVAE_COMPONENT, prior_component
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
    """Write weights by component; a bundle that a run had left before at `out` is replaced when this one is whole.

    `began_with`: where the weights came from that were fine-tuned, see `component_source`. `advice`: that of the
    model that was fine-tuned.
    """
    components: dict[str, Callable[[], TensorSource]] = {
        name: partial(TensorTable, tensors) for name, tensors in weights.items()
    }
    with replaced_directory(out) as fresh:
        source = record_numbers(record) | ({} if began_with is None else {"began_with": dict(began_with)})
        write_bundle(fresh, BundleContents(config, components, source, vocabulary or Vocabulary(), advice.as_file()))
    return CheckpointBundle.open(out)


def component_source(bundle: CheckpointBundle, component: str) -> Mapping[str, Any]:
    """Where the weights of one component came from, also in a bundle that was joined of others."""
    source: Mapping[str, Any] = bundle.source.get("parts", {}).get(component, bundle.source)
    return source


@dataclass(frozen=True)
class CastTensors:
    """Tensors in another dtype."""

    source: TensorSource
    dtype: torch.dtype

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor."""
        return {name: TensorInfo(info.shape, self.dtype) for name, info in self.source.infos.items()}

    def load(self, name: str) -> Tensor:
        """One of the tensors."""
        return self.source.load(name).to(self.dtype)


def join_bundles(
    bundles: Sequence[CheckpointBundle],
    out: Path,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    *,
    later_wins: bool = False,
) -> CheckpointBundle:
    """Put priors that were trained apart into one bundle with their VQ-VAE.

    `dtype`: of all tensors in the new bundle; default: as they are. `later_wins`: of two bundles with a prior
    of the same level the later one gives it.

    Raises:
        CheckpointError: if the VQ-VAEs differ, or two bundles have the same prior.
        SamplingError: if what a bundle says about sampling is damaged.
    """
    # Bundles of priors carry their VQ-VAE as a copy; the one that was trained as such tells how it was made.
    first = next((bundle for bundle in bundles if not bundle.config.priors), bundles[0])
    owners = {VQVAE_COMPONENT: first}
    for bundle in bundles:
        _require_same_vqvae(first, bundle)
        for component in bundle.components[1:]:
            if component in owners and not later_wins:
                raise CheckpointError(
                    f"{bundle.folder} and {owners[component].folder} both have {component}; leave one of them out."
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
    def open_tensors() -> TensorSource:
        tensors = bundle.tensors(component)
        return tensors if dtype is None else CastTensors(tensors, dtype)

    return open_tensors


def _require_same_vqvae(owner: CheckpointBundle, other: CheckpointBundle) -> None:
    """The levels of the VQ-VAE whose codes the priors of `other` write and read must be those of `owner`."""
    mine, theirs = owner.tensors(VQVAE_COMPONENT), other.tensors(VQVAE_COMPONENT)
    levels = _levels_in_use(other)
    names = [name for name in mine.infos if int(name.split(".")[1]) in levels]
    same = owner.config.vqvae == other.config.vqvae and all(
        torch.equal(mine.load(name), theirs.load(name)) for name in names
    )
    if not same:
        raise CheckpointError(
            f"{other.folder} and {owner.folder} have different VQ-VAEs: codes of one mean nothing to the other. "
            "Train all priors on the codes of one VQ-VAE."
        )


def _levels_in_use(bundle: CheckpointBundle) -> set[int]:
    """Levels share nothing, so those that no prior knows may differ; all of a VQ-VAE without priors."""
    vqvae, priors = bundle.config.vqvae, bundle.config.priors
    if not priors:
        return set(range(vqvae.levels))
    return {level for prior in priors for level in (prior.level, prior.level + 1) if level < vqvae.levels}


def _common_vocabulary(bundles: Sequence[CheckpointBundle]) -> Vocabulary:
    """The lists of all bundles; two that name the same rules must agree."""
    lists: dict[LabelRules, NameLists] = {}
    for bundle in bundles:
        for rules, names in bundle.vocabulary.lists.items():
            if lists.setdefault(rules, names) != names:
                raise CheckpointError(
                    f"{bundle.folder}: its lists of artists and genres ({rules}) differ from another bundle's. "
                    "Train all priors with one --vocabulary."
                )
    return Vocabulary(lists)
