"""Readable summary of what a manifest says about quantised weights.

An export writes these facts to the options of a prior's graphs, and a build copies them to the engines' options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jukebox_deploy.engines.manifest import GraphEntry, Manifest

KEY = "quantised_weights"
"""Key of the facts in a graph's options."""


def facts_of(entry: GraphEntry) -> dict[str, Any] | None:
    """Return the facts of one graph; `None` if none of its weights are quantised."""
    facts = entry.options.get(KEY)
    return facts if isinstance(facts, dict) else None


def quantised_weights(manifest: Manifest) -> dict[int, dict[str, Any]]:
    """Return the facts of all priors with quantised weights, by level."""
    return {entry.spec.level: facts for entry in manifest.graphs.values() if (facts := facts_of(entry)) is not None}


def describe_prior(level: int, facts: Mapping[str, Any]) -> str:
    """Summarise the facts of one prior in one line."""
    quality, kept, unfit = facts["quality"], facts["kept"], facts["not_in_whole_groups"]
    measured = "quality not measured"
    if quality is not None:
        measured = (
            f"KL {quality['mean_kl_nats']:.2g} nats (limit {quality['limit']:g}), top-1 "
            f"{quality['top1_agreement']:.1%} over {quality['positions']} codes"
        )
    left = (f", {len(kept)} kept" if kept else "") + (f", {len(unfit)} without whole groups of inputs" if unfit else "")
    return (
        f"prior {level}: {facts['quantised']} {facts['weights']} weights{left}; "
        f"calibration {facts['calibration']}; {measured}"
    )
