"""Write the generated blocks of README.md, docs/speed.md and the card of the shipped model, from result files.

    python -m jukebox_deploy.benchmarks.readme_numbers [--check]

docs/speed.md has a table of all complete runs in `benchmarks/results/`: for each machine, the newest measurement of
every engine, in one workload of each group that differs in one field only (`workload_groups.headlines`). README.md has
the rows of this table that are about released models. The other blocks come from `growth_table` and `model_card`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from jukebox_deploy.benchmarks.documents.filled_blocks import Block, escaped, fill
from jukebox_deploy.benchmarks.documents.growth_table import GROWTH_BLOCK
from jukebox_deploy.benchmarks.documents.model_card import CARD_BLOCKS
from jukebox_deploy.benchmarks.drawing.report import by_machine
from jukebox_deploy.benchmarks.drawing.words import BACKEND, title_of, unit_of
from jukebox_deploy.benchmarks.preset_bundles import UPSAMPLER
from jukebox_deploy.benchmarks.results import (
    FORMAT,
    Backend,
    BenchmarkRun,
    VariantResult,
    Workload,
    WorkloadKind,
    WorkloadResult,
)
from jukebox_deploy.benchmarks.scripts import in_sentences, script_parser
from jukebox_deploy.benchmarks.workload_groups import distinct, headlines, is_engine, ratio_over, share_of_limit
from jukebox_deploy.markdown import table
from jukebox_deploy.quantities import number, percent, times

NOTHING = "No measurement is recorded yet."

_MODULE = "jukebox_deploy.benchmarks.readme_numbers"
_REPOSITORY = Path(__file__).resolve().parent.parent
_BASELINES = (Backend.EAGER, Backend.EAGER_STATIC, Backend.TORCH_COMPILE, Backend.HUGGING_FACE)
_RATIOS = tuple(f">over {BACKEND[backend]}" for backend in _BASELINES)
_HEADINGS = ("what", "engine", ">speed", ">of limit", *_RATIOS, "measured")


def speed_table(results: Path, link: str, shown: Callable[[Workload], bool] = lambda workload: True) -> str:
    """Return the Markdown table of the result files in a folder, with the workloads for which `shown` is true.

    `link`: the relative path from the document to the folder. Raises `JukeboxError` for a damaged result file.
    """
    loaded = {path.name: BenchmarkRun.load(path) for path in sorted(results.glob("*.json")) if is_result(path)}
    runs = {name: run for name, run in loaded.items() if run.complete}
    newest: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for machine in by_machine(runs):
        origins = {id(result): name for name, run in machine.runs.items() for result in run.results}
        for result in headlines(distinct(machine.results)):
            if not shown(result.workload):
                continue
            name = origins[id(result)]
            day = f"[{escaped(runs[name].date[:10])}]({link}/{quote(name)})"
            measured = f"{escaped(machine.machine.name)}, {machine.machine.cores} cores, {day}"
            for row in _rows(result, measured):
                newest[row[0], row[1], machine.machine.name] = row
    if not newest:
        return NOTHING
    works = list(dict.fromkeys((what, machine) for what, _, machine in newest))  # rows of one workload stay together
    ordered = sorted(newest.items(), key=lambda item: works.index((item[0][0], item[0][2])))
    return table(_HEADINGS, (row for _, row in ordered))


def is_result(path: Path) -> bool:
    """Return whether a JSON file holds a benchmark run; the folder also holds other results."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return True  # so that loading it reports what is wrong
    return isinstance(data, dict) and data.get("format") == FORMAT


def _rows(result: WorkloadResult, measured: str) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each engine below `_HEADINGS`; those without a measurement are empty.

    `measured`: the machine, and the date as a link to the result file.
    """
    for variant in filter(is_engine, result.variants):
        share = share_of_limit(result.workload, variant)
        yield (
            escaped(title_of(result.workload)),
            escaped(variant.name),
            f"{number(variant.speed.median)} {unit_of(result.workload.kind)}",
            "" if share is None else percent(share),
            *(_ratio(result, variant, backend) for backend in _BASELINES),
            measured,
        )


def _ratio(result: WorkloadResult, variant: VariantResult, baseline: Backend) -> str:
    ratio = ratio_over(result, variant, baseline)
    return "" if ratio is None else times(ratio.median)


def is_main(workload: Workload) -> bool:
    """Return whether README.md shows a workload: the step of a released upsampler, and its decoding to audio."""
    return (workload.kind, workload.model) in ((WorkloadKind.STEP, UPSAMPLER), (WorkloadKind.DECODE, "1b_lyrics"))


README_BLOCK = Block(
    "README.md", "benchmarks", lambda root: speed_table(root / "benchmarks" / "results", "benchmarks/results", is_main)
)
SPEED_BLOCK = Block(
    "docs/speed.md", "benchmarks", lambda root: speed_table(root / "benchmarks" / "results", "../benchmarks/results")
)


@in_sentences
def main(arguments: Sequence[str] | None = None, repository: Path = _REPOSITORY) -> None:
    """Run the script; the docstring of the module describes it."""
    parser = script_parser(_MODULE, __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document is out of date")
    check = parser.parse_args(arguments).check
    stale = fill(repository, _blocks(repository), check=check)
    if check and stale:
        sys.exit(f"{', '.join(stale)}: the numbers differ from those of the result files; run this without --check.")


def _blocks(repository: Path) -> Sequence[Block]:
    """Return the blocks of README.md, and of those other documents that exist."""
    others = [block for block in (SPEED_BLOCK, GROWTH_BLOCK, *CARD_BLOCKS) if (repository / block.document).exists()]
    return (README_BLOCK, *others)


if __name__ == "__main__":
    main()
