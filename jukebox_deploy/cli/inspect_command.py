"""`jukebox-deploy inspect`: what is in a checkpoint bundle or an engine bundle, and what memory it takes."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engines.bundle import MANIFEST_NAME, EngineBundle, open_bundle
from jukebox_deploy.engines.manifest import GraphEntry, Manifest
from jukebox_deploy.engines.memory_plan import PriorMemory, plan_config, plan_manifest
from jukebox_deploy.engines.quantised_weights import describe_prior, quantised_weights
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import layers_of_parts

if TYPE_CHECKING:
    from rich.console import Console

Description = dict[str, Any]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--graph", "graphs", multiple=True, metavar="NAME", help="Also print the tensors of this graph.")
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Say how many slots fit into 10^9 bytes.",
)
@click.option("--quick", is_flag=True, help="Leave out the hashes, which take time for large files.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(folder: Path, graphs: tuple[str, ...], memory: float | None, quick: bool, as_json: bool) -> None:
    """Show what is in DIR: a checkpoint bundle made by `import`, or a bundle made by `export` or `build`.

    A slot is a song sampled at a time. Memory is that of one prior, with its step and prefill open.
    """
    limit = None if memory is None else round(memory * 1e9)
    if (folder / MANIFEST_NAME).is_file():
        description = describe_engines(open_bundle(folder, verify_hashes=not quick), quick, limit)
    elif (folder / "config.json").is_file():
        description = describe_checkpoint(folder, quick, limit)
    else:
        raise EngineError(f"{folder} is no bundle: it has neither {MANIFEST_NAME} nor config.json.")
    tables = _tables(description)
    if unknown := [name for name in graphs if name not in tables]:
        raise EngineError(f"{folder} has no graphs {unknown}; it has {list(tables)}.")
    if as_json:
        click.echo(json.dumps(description, indent=2))
    else:
        _print(description, {name: tables[name] for name in graphs})


def _tables(description: Description) -> dict[str, Description]:
    """The tables of all graphs and of their parts, by name."""
    graphs = description.get("graphs", {})
    parts = {part["graph"]: part["table"] for graph in graphs.values() for part in graph["parts"]}
    return {name: graph["table"] for name, graph in graphs.items()} | parts


def describe_engines(bundle: EngineBundle, quick: bool, limit: int | None) -> Description:
    """An engine bundle as plain data; sizes in bytes."""
    manifest = bundle.manifest
    graphs = {
        name: {
            "file": entry.file or None,
            "weights": list(entry.weights),
            "bytes": sum(manifest.files[file].bytes for file in entry.files),
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
        "tools": dict(manifest.tools),
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "graphs": graphs,
        "parity": manifest.parity,
        "memory": [_describe_memory(plan, limit) for plan in plan_manifest(manifest)],
    }


def _describe_parts(manifest: Manifest, entry: GraphEntry) -> list[Description]:
    """The parts of a graph that was cut. `bytes` are those of the file; exported parts share the graph's `weights`."""
    if not entry.parts:
        return []
    counts = entry.options.get("layers_of_parts", [])  # of the parsed networks; an export has none
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
    """A checkpoint bundle as plain data; memory as it would be after an export in fp32 and fp16."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle

    bundle = CheckpointBundle.open(folder)
    plans = [plan for precision in (Precision.FP32, Precision.FP16) for plan in plan_config(bundle.config, precision)]
    return {
        "kind": "checkpoint bundle",
        "folder": str(folder),
        "model": bundle.config.name,
        "fingerprint": None if quick else bundle.fingerprint(),
        "source": dict(bundle.source),
        "components": {name: _describe_component(bundle.tensors(name).infos) for name in bundle.components},
        "vocabulary": {
            rules: {kind: len(names) for kind, names in lists.items()}
            for rules, lists in bundle.vocabulary.to_json().items()
        },
        "memory": [_describe_memory(plan, limit) for plan in plans],
    }


def _describe_component(infos: Any) -> Description:
    parameters: Counter[str] = Counter()
    for info in infos.values():
        parameters[str(info.dtype).removeprefix("torch.")] += math.prod(info.shape)
    return {
        "tensors": len(infos),
        "parameters": parameters.total(),
        "dtypes": dict(parameters),
        "bytes": sum(info.bytes for info in infos.values()),
    }


def _describe_memory(plan: PriorMemory, limit: int | None) -> Description:
    description = asdict(plan) | {"total": {slots: plan.total(slots) for slots in (1, plan.most_slots)}}
    return description if limit is None else description | {"memory": limit, "slots_that_fit": plan.slots_within(limit)}


def _print(description: Description, tables: dict[str, Description]) -> None:
    from rich.console import Console

    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    if description["kind"] == "engine bundle":
        _print_engines(console, description)
    else:
        _print_checkpoint(console, description)
    for name, table in tables.items():
        _print_tensors(console, name, table)
    _print_memory(console, description["memory"])


def _print_engines(console: Console, description: Description) -> None:
    console.print(
        f"{description['folder']}: engine bundle of {description['model']} for {description['target']}, "
        f"{_element_types(description)}, {_gigabytes(description['bytes'])} GB"
    )
    console.print(f"hashes: {description['hashes']}; checkpoint {description['checkpoint']}")
    console.print(f"parity: {'the report is in the manifest' if description['parity'] else 'not compared'}")
    for level, facts in description["quantised_weights"].items():
        console.print(describe_prior(level, facts))
    console.print("made with " + ", ".join(f"{name} {version}" for name, version in description["tools"].items()))
    rows = [row for name, graph in description["graphs"].items() for row in _graph_rows(name, graph)]
    _print_table(console, ("graph", "file", "MiB with weights", "layers", "sizes", "GPUs"), rows, right=(2,))


def _graph_rows(name: str, graph: Description) -> Iterator[tuple[str, ...]]:
    """A graph, and below it its parts with the layers of the stack that each has."""
    parts = graph["parts"]
    file = graph["file"] or f"{len(parts)} parts"
    capabilities = ", ".join(graph["compute_capabilities"])
    yield name, file, _mebibytes(graph["bytes"]), "", _ranges(graph["table"]), capabilities
    for part in parts:
        size = _mebibytes(part["bytes"]) + (" + shared" if graph["weights"] else "")
        first, last = part["stack_layers"]
        yield "", part["file"], size, f"{first}-{last}", "", ""


def _element_types(description: Description) -> str:
    weights = description["linear_weights"]
    return description["precision"] + ("" if weights == LinearWeights.AS_PRECISION else f" with {weights} weights")


def _ranges(table: Description) -> str:
    return "  ".join(f"{symbol} {low}-{high}" for symbol, (low, _, high) in table["ranges"].items())


def _print_checkpoint(console: Console, description: Description) -> None:
    console.print(f"{description['folder']}: checkpoint bundle of {description['model']}")
    console.print(f"fingerprint: {description['fingerprint'] or 'not computed'}")
    for rules, counts in description["vocabulary"].items():
        console.print(f"names ({rules}): " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    rows = [
        (name, f"{part['parameters']:,}", _mebibytes(part["bytes"]), ", ".join(part["dtypes"]))
        for name, part in description["components"].items()
    ]
    _print_table(console, ("part", "parameters", "MiB", "dtypes"), rows, right=(1, 2))


def _print_tensors(console: Console, name: str, table: Description) -> None:
    rows = [
        (
            tensor["name"],
            tensor["dtype"],
            "[" + ", ".join(map(str, tensor["dims"])) + "]",
            tensor["role"] + (", in place" if tensor["in_place"] else ""),
        )
        for tensor in table["tensors"]
    ]
    _print_table(console, (f"tensors of {name}", "dtype", "dimensions", "role"), rows)


def _print_memory(console: Console, plans: list[Description]) -> None:
    headings = ["prior", "precision", "weights GB", "caches MiB/slot", "window MiB/slot"]
    cut = any(plan["hand_over_per_slot"] for plan in plans)
    headings += [*(["between parts MiB/slot"] if cut else []), "activations MiB"]
    rows = []
    for plan in plans:
        row = [
            str(plan["level"]),
            plan["precision"],
            _gigabytes(plan["weights"]),
            _mebibytes(plan["caches_per_slot"]),
            _mebibytes(plan["window_per_slot"]),
            *([_mebibytes(plan["hand_over_per_slot"])] if cut else []),
            "" if plan["activations"] is None else _mebibytes(plan["activations"]),
            *(f"{_gigabytes(total)} ({slots})" for slots, total in plan["total"].items()),
        ]
        rows.append([*row, str(plan["slots_that_fit"])] if "memory" in plan else row)
    if not rows:
        return
    headings += ["GB (slots)", "GB (most slots)"]
    if "memory" in plans[0]:
        headings.append(f"slots in {plans[0]['memory'] / 1e9:g} GB")
    _print_table(console, headings, rows, right=range(2, len(headings)))


def _print_table(console: Console, headings: Any, rows: Any, right: Any = ()) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index in right else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.3f}"
