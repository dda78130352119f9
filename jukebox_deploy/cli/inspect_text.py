"""The output of `inspect` as readable text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jukebox_deploy.cli.level_values import settings_options
from jukebox_deploy.cli.tables import output_console, print_rows
from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.contract import SLOT_GRAPHS, LinearWeights
from jukebox_deploy.engines.manifest import SOURCE_GRAPHS
from jukebox_deploy.engines.quantised_weights import describe_prior
from jukebox_deploy.jobs.sampling_advice import SamplingAdvice
from jukebox_deploy.quantities import byte_size

if TYPE_CHECKING:
    from rich.console import Console

Description = dict[str, Any]
"""A bundle as plain data."""


def print_description(description: Description, tables: dict[str, Description]) -> None:
    """Print a description, and the tensors of the graphs in `tables`."""
    console = output_console()
    if description["kind"] == "engine bundle":
        _print_engines(console, description)
    else:
        _print_checkpoint(console, description)
    for name, table in tables.items():
        _print_tensors(console, name, table)
    _print_memory(console, _with_weights(description), description["vqvae_memory"])


def _print_engines(console: Console, description: Description) -> None:
    console.print(
        f"{description['folder']}: engine bundle of {description['model']} for {description['target']}, "
        f"{_element_types(description['precision'], description)}, {byte_size(description['bytes'])}"
    )
    console.print(f"hashes: {description['hashes']}; checkpoint {description['checkpoint']}")
    _print_sampling(console, description)
    for line in _parity(description):
        console.print(f"parity: {line}")
    for level, facts in description["quantised_weights"].items():
        console.print(describe_prior(level, facts))
    console.print("made with " + ", ".join(f"{name} {version}" for name, version in description["tools"].items()))
    rows = [row for name, graph in description["graphs"].items() for row in _graph_rows(name, graph)]
    size = "size with weights"
    print_rows(console, ("graph", "file", size, "layers", "sizes", "GPUs"), rows, right=(size,))
    _print_builds(console, description["graphs"])


def _parity(description: Description) -> Iterator[str]:
    """Yield what the manifest records of comparisons with PyTorch: by the export, and by `verify --record`."""
    parity = description["parity"] or {}
    built = any(SOURCE_GRAPHS in graph["options"] for graph in description["graphs"].values())
    if any("runs" in report for report in parity.get("graphs", {}).values()):
        yield "the export compared its graphs; the report is in the manifest"
    elif built:
        yield (
            "the export compared the graphs that this bundle was built from, unless it had --no-validate; the report "
            "is in their manifest"
        )
    else:
        yield "the export compared nothing (--no-validate)"
    if built and "verification" not in parity:
        yield "what was built was not compared; `jukebox-deploy verify DIR --against BUNDLE --record` does that"
    if "verification" in parity:
        outcomes = parity["verification"]["outcomes"]
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        ran = parity["verification"].get("ran_engines", True)
        yield f"verify recorded {counts}" + ("" if ran else "; nothing in the bundle ran, so it is not verified")


def _print_sampling(console: Console, description: Description) -> None:
    """Print the model's own sampling defaults."""
    if description["sampling"] is not None:
        advice = config_from_dict(SamplingAdvice, description["sampling"])
        console.print("sampled by default with " + shlex.join(settings_options(advice.levels, advice.total_seconds)))


def _print_builds(console: Console, graphs: dict[str, Description]) -> None:
    """Print how engines were built; graphs for ONNX Runtime are not built."""
    built = {name: graph for name, graph in graphs.items() if "profiles" in graph["options"]}
    if not built:
        return
    headings = ("engine", "network layers", "kernels per run", "tuned for slots", "features")
    rows = [(name, *_build_row(graph)) for name, graph in built.items()]
    print_rows(console, headings, rows, right=headings[1:3])
    names_of: dict[str, list[str]] = {}
    for name, graph in built.items():
        for reason in graph["options"].get("refused", []):
            names_of.setdefault(reason, []).append(name)
    for reason, names in names_of.items():
        console.print(f"not for all GPUs, {', '.join(names)}: {reason}")


def _build_row(graph: Description) -> tuple[str, ...]:
    options, ranges = graph["options"], graph["table"]["ranges"]
    kernels, slots = options.get("kernels"), options.get("slots") if graph["table"]["kind"] in SLOT_GRAPHS else []
    best = slots or ([ranges["B"][1]] if "B" in ranges else [])
    return (
        f"{options.get('layers', 0):,}",
        "" if kernels is None else f"{kernels:,}",
        ", ".join(map(str, best)),
        ", ".join(options.get("features", [])),
    )


def _graph_rows(name: str, graph: Description) -> Iterator[tuple[str, ...]]:
    """Yield the row of a graph, then a row for each of its parts with the layers of the stack it holds."""
    parts = graph["parts"]
    file = graph["file"] or f"{len(parts)} parts"
    capabilities = ", ".join(graph["compute_capabilities"])
    yield name, file, byte_size(graph["bytes"]), "", _ranges(graph["table"]), capabilities
    for part in parts:
        size = byte_size(part["bytes"]) + (" + shared" if graph["weights"] else "")
        first, last = part["stack_layers"]
        yield "", part["file"], size, f"{first}-{last}", "", ""


def _element_types(precision: str, description: Description) -> str:
    """Return a precision and how a bundle stores linear layers; checkpoint bundles store all weights alike."""
    weights = description.get("linear_weights", LinearWeights.AS_PRECISION)
    return precision + ("" if weights == LinearWeights.AS_PRECISION else f" with {weights} weights")


def _with_weights(description: Description) -> list[Description]:
    """Return the memory plans of a bundle, the precision of each completed by how the bundle stores its weights."""
    return [{**plan, "precision": _element_types(plan["precision"], description)} for plan in description["memory"]]


def _ranges(table: Description) -> str:
    return "  ".join(f"{symbol} {low}-{high}" for symbol, (low, _, high) in table["ranges"].items())


def _print_checkpoint(console: Console, description: Description) -> None:
    console.print(f"{description['folder']}: checkpoint bundle of {description['model']}")
    console.print(f"fingerprint: {description['fingerprint'] or 'not computed'}; tensors: {description['tensors']}")
    _print_sampling(console, description)
    for rules, counts in description["vocabulary"].items():
        console.print(f"names ({rules}): " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    rows = [
        (name, f"{part['parameters']:,}", byte_size(part["bytes"]), ", ".join(part["dtypes"]))
        for name, part in description["components"].items()
    ]
    print_rows(console, ("part", "parameters", "size", "dtypes"), rows, right=("parameters", "size"))


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
    print_rows(console, (f"tensors of {name}", "dtype", "dimensions", "role"), rows)


def _print_memory(console: Console, plans: list[Description], vqvae: list[Description]) -> None:
    """Print what the memory of a prior consists of, and how much there is in all by number of slots."""
    if plans:
        cut = any(plan["hand_over_per_slot"] for plan in plans)
        between = ["between parts per slot"] if cut else []
        headings = ["prior", "precision", "weights", "caches per slot", "window per slot", *between]
        headings += ["one window", "activations"]
        print_rows(console, headings, [_memory_row(plan, cut) for plan in plans], right=headings[2:])
        _print_totals(console, plans)
    if vqvae:
        headings = ["VQ-VAE", "weights", "activations", "in all"]
        rows = [
            (plan["graph"], byte_size(plan["weights"]), byte_size(plan["activations"]), byte_size(plan["total"]))
            for plan in vqvae
        ]
        print_rows(console, headings, rows, right=headings[1:])
    if plans or vqvae:
        console.print(_not_counted([*plans, *vqvae]))


def _memory_row(plan: Description, cut: bool) -> list[str]:
    return [
        str(plan["level"]),
        plan["precision"],
        byte_size(plan["weights"]),
        byte_size(plan["caches_per_slot"]),
        byte_size(plan["window_per_slot"]),
        *([byte_size(plan["hand_over_per_slot"])] if cut else []),
        byte_size(plan["one_window"]),
        byte_size(plan["activations"]),
    ]


def _print_totals(console: Console, plans: list[Description]) -> None:
    counts = sorted({slots for plan in plans for slots in plan["total"]})
    headings = ["prior", "precision", *(f"with {slots} slot{'s' * (slots != 1)}" for slots in counts)]
    rows = []
    for plan in plans:
        totals = (plan["total"].get(slots) for slots in counts)
        row = [str(plan["level"]), plan["precision"], *("" if t is None else byte_size(t) for t in totals)]
        rows.append([*row, str(plan["slots_that_fit"])] if "memory" in plan else row)
    if "memory" in plans[0]:
        headings.append(f"slots in {plans[0]['memory'] / 1e9:g} GB")
    print_rows(console, headings, rows, right=headings[2:])


def _not_counted(plans: list[Description]) -> str:
    unknown = any(plan["activations"] is None for plan in plans)
    left_out = "activations where none are shown, because they are not known; " if unknown else ""
    return (
        f"Not counted: {left_out}on a GPU, what CUDA itself takes, which depends on the driver and the GPU. While the "
        "VQ-VAE works, no prior is open."
    )
