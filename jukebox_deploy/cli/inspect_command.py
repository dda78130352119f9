"""`jukebox-deploy inspect`: show the contents and memory needs of a checkpoint bundle or an engine bundle."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.inspect_text import Description, print_description
from jukebox_deploy.cli.options import PATH, UsualFloat
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.bundle import MANIFEST_NAME, EngineBundle, is_engine_bundle, open_bundle
from jukebox_deploy.engines.manifest import GraphEntry, Manifest
from jukebox_deploy.engines.memory_plan import PriorMemory, plan_bundle, plan_config, plan_vqvae
from jukebox_deploy.engines.quantised_weights import quantised_weights
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graph_cutting import layers_of_parts
from jukebox_deploy.jobs.sampling_advice import bundle_advice, engine_advice
from jukebox_deploy.listing import words_of
from jukebox_deploy.optional_packages import OPTIONAL_PACKAGES

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.safetensors_header import TensorHeader


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    metavar="NAME",
    help="Also list the input and output tensors of this graph; may be repeated.",
)
@click.option(
    "--memory",
    type=UsualFloat(min=0, min_open=True),
    metavar="GB",
    help="Show how many slots fit into this much memory; 1 GB is 10^9 bytes. Leave room for what CUDA itself takes.",
)
@click.option("--quick", is_flag=True, help="Skip checking and computing hashes, which is slow for large files.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(folder: Path, graphs: tuple[str, ...], memory: float | None, quick: bool, as_json: bool) -> None:
    """Show the contents and memory needs of DIR, a bundle made by `import`, `export` or `build`.

    A slot is one of the songs that are sampled at the same time. Memory is given per prior, with its step and prefill
    graphs loaded, and per graph of the VQ-VAE: one of these is open at a time.
    """
    limit = None if memory is None else round(memory * 1e9)
    if is_engine_bundle(folder):
        description = describe_engines(open_bundle(folder, verify_hashes=not quick), quick, limit)
    elif (folder / "config.json").is_file():
        description = describe_checkpoint(folder, quick, limit)
    else:
        found = f"has neither {MANIFEST_NAME} nor config.json" if folder.is_dir() else "there is no such folder"
        raise EngineError(f"{folder} is no bundle: {found}.")
    tables = _tables(description)
    if unknown := [name for name in graphs if name not in tables]:
        raise EngineError(f"{folder} has no graph {words_of(unknown, 'or')}; it has {words_of(tables)}.")
    if as_json:
        click.echo(json.dumps(description, indent=2))
    else:
        print_description(description, {name: tables[name] for name in graphs})


def _tables(description: Description) -> dict[str, Description]:
    """Return the tensor tables of all graphs and of their parts, by name."""
    graphs = description.get("graphs", {})
    parts = {part["graph"]: part["table"] for graph in graphs.values() for part in graph["parts"]}
    return {name: graph["table"] for name, graph in graphs.items()} | parts


def describe_engines(bundle: EngineBundle, quick: bool, limit: int | None) -> Description:
    """Describe an engine bundle as plain data; sizes in bytes."""
    manifest = bundle.manifest
    graphs = {
        name: {
            "file": entry.file or None,
            "weights": list(entry.weights),
            "bytes": manifest.bytes_of(entry.files),
            "compute_capabilities": list(entry.compute_capabilities),
            "options": dict(entry.options),
            "table": entry.spec.to_json(),
            "parts": _describe_parts(manifest, entry),
        }
        for name, entry in manifest.graphs.items()
    }
    return {
        "kind": "engine bundle",
        "folder": str(bundle.folder),
        "model": manifest.config.name,
        "target": str(manifest.target),
        "precision": str(manifest.precision),
        "linear_weights": str(manifest.linear_weights),
        "quantised_weights": quantised_weights(manifest),
        "format_version": manifest.format_version,
        "hashes": "not checked" if quick else "all match",
        "checkpoint": manifest.checkpoint,
        "sampling": engine_advice(bundle).to_json(),
        "tools": dict(manifest.tools),
        "bytes": manifest.bytes_of(manifest.files),
        "graphs": graphs,
        "parity": manifest.parity,
        "memory": [_describe_memory(plan, limit) for plan in plan_bundle(bundle)],
        "vqvae_memory": [asdict(plan) | {"total": plan.total} for plan in plan_vqvae(bundle)],
    }


def _describe_parts(manifest: Manifest, entry: GraphEntry) -> list[Description]:
    """Describe the parts of a split graph. `bytes` is the size of its file; exported parts share the `weights`."""
    if not entry.parts:
        return []
    counts = entry.options.get("layers_of_parts", [])  # of the parsed networks; exported graphs have none
    layers = layers_of_parts(manifest.config.prior(entry.spec.level).transformer.depth, len(entry.parts))
    return [
        {
            "graph": part.spec.name,
            "file": part.file,
            "bytes": manifest.files[part.file].bytes,
            "stack_layers": [mine.start, mine.stop - 1],
            "network_layers": count,
            "table": part.spec.to_json(),
        }
        for part, mine, count in zip_longest(entry.parts, layers, counts)
    ]


def describe_checkpoint(folder: Path, quick: bool, limit: int | None) -> Description:
    """Describe a checkpoint bundle as plain data; memory is that of an export in fp32 and in fp16."""
    from jukebox_deploy.checkpoints.bundle_folder import BundleFolder

    bundle = BundleFolder.read(folder)
    plans = [plan for precision in (Precision.FP32, Precision.FP16) for plan in plan_config(bundle.config, precision)]
    return {
        "kind": "checkpoint bundle",
        "folder": str(folder),
        "model": bundle.config.name,
        "fingerprint": None if quick else bundle.fingerprint(),
        "source": dict(bundle.source),
        "sampling": bundle_advice(bundle).to_json(),
        "components": {name: _describe_component(bundle.headers(name)) for name in bundle.components},
        "tensors": "all fit the configuration" if _is_compared(folder) else "not compared, which takes PyTorch",
        "vocabulary": {
            rules: {kind: len(names) for kind, names in lists.items()}
            for rules, lists in bundle.vocabulary.to_json().items()
        },
        "memory": [_describe_memory(plan, limit) for plan in plans],
        "vqvae_memory": [],
    }


def _is_compared(folder: Path) -> bool:
    """Compare the names and shapes of a bundle's tensors with its configuration; `False` without PyTorch.

    Raises `CheckpointError` if they do not fit.
    """
    try:
        from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL_PACKAGES:
            raise
        return False
    CheckpointBundle.open(folder)
    return True


def _describe_component(headers: Mapping[str, TensorHeader]) -> Description:
    parameters: Counter[str] = Counter()
    for header in headers.values():
        parameters[header.dtype] += math.prod(header.shape)
    return {
        "tensors": len(headers),
        "parameters": parameters.total(),
        "dtypes": dict(parameters),
        "bytes": sum(header.bytes for header in headers.values()),
    }


def _describe_memory(plan: PriorMemory, limit: int | None) -> Description:
    totals = {slots: plan.total(slots) for slots in plan.slot_counts}
    description = asdict(plan) | {"total": totals}
    return description if limit is None else description | {"memory": limit, "slots_that_fit": plan.slots_within(limit)}
