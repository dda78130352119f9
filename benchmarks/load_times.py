"""Measure the time from the start of a process to a prior's first code, for bundles of ONNX graphs.

    python -m jukebox_deploy.benchmarks.load_times GRAPHS READY --level 0 --rounds 5 --out FILE

Each round opens every bundle once, each in a separate process, in rotating order. A first round is not counted, so that
the files are in the system's cache afterwards. `--mapped` also measures large float weights memory-mapped. The total is
the sum of the seconds to import, to check hashes, to open the step and to run it once. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jukebox_deploy.benchmarks.scripts import in_sentences, new_record, number_from, script_parser
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.files import write_json_atomic

_MODULE = "jukebox_deploy.benchmarks.load_times"
ROUNDS = 5
"""Default number of counted rounds."""


@dataclass(frozen=True)
class Opening:
    """The session to open, as passed to the separate process."""

    bundle: str
    level: int
    slots: int = 1
    threads: int | None = None  # `None`: as many as speed up the graph
    mapped: bool = False  # whether large float weights are memory-mapped


@dataclass(frozen=True)
class LoadTime:
    """The cost of one opening: the wall seconds of each stage and in total, processor time and peak memory."""

    imports: float  # from the start of the process
    hashes: float
    open: float  # of the step's session
    first_code: float
    total: float
    cpu: float  # processor seconds, sum over all cores
    peak_rss_bytes: int  # includes mapped files, although the system can drop their pages


def open_once(opening: Opening, begun: float, clock: Callable[[], float] = time.monotonic) -> LoadTime:
    """Open a session in this process and run one step; `begun`: the time of the process's start on the same clock.

    Raises `EngineError` for a bundle that is damaged or cannot run here.
    """
    from jukebox_deploy.benchmarks.process_memory import memory_field
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
    from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
    from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine

    import_onnxruntime()
    ends = [clock()]
    bundle = open_bundle(opening.bundle)
    ends.append(clock())
    options = OnnxRuntimeOptions(threads=opening.threads, map_weights=opening.mapped)
    session = onnx_engine(bundle, options).prior_session(opening.level, opening.slots)
    ends.append(clock())
    session.step(1)
    ends.append(clock())
    imports, hashes, opened, code = (end - start for start, end in zip([begun, *ends], ends, strict=False))
    return LoadTime(imports, hashes, opened, code, ends[-1] - begun, time.process_time(), memory_field("VmHWM"))


def open_in_process(opening: Opening) -> LoadTime:
    """Open a session in a separate process and run one step.

    Raises `EngineError` if the process fails, with the last line of its error output.
    """
    from jukebox_deploy.benchmarks.process_memory import output_of

    command = [sys.executable, "-m", _MODULE, "--once", json.dumps(config_to_dict(opening)), repr(time.monotonic())]
    printed = output_of(command, f"{opening.bundle} could not be opened")
    return config_from_dict(LoadTime, json.loads(printed), "load time")


def measure(openings: Sequence[Opening], rounds: int, open_one: Callable[[Opening], LoadTime]) -> list[dict[str, Any]]:
    """Open all sessions in turn, round by round; return the medians and the rounds of each, in the given order."""
    found: list[list[LoadTime]] = [[] for _ in openings]
    for number in range(rounds + 1):
        for place in range(len(openings)):
            index = (number + place) % len(openings)
            found[index].append(open_one(openings[index]))
    counted = [[asdict(opened) for opened in mine[1:]] for mine in found]
    return [
        {**asdict(opening), "median": {name: median(t[name] for t in mine) for name in mine[0]}, "rounds": mine}
        for opening, mine in zip(openings, counted, strict=True)
    ]


def _openings(options: argparse.Namespace) -> list[Opening]:
    """Return an opening per bundle; with `--mapped`, bundles with float weights get another one, memory-mapped."""
    from jukebox_deploy.contract import LinearWeights
    from jukebox_deploy.engines.bundle import open_bundle

    openings = []
    for folder in options.bundles:
        manifest = open_bundle(folder, verify_hashes=False).manifest
        floats = manifest.linear_weights is LinearWeights.AS_PRECISION
        choices = (False, True) if options.mapped and floats else (False,)
        openings += [Opening(str(folder), options.level, options.slots, options.threads, m) for m in choices]
    return openings


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(_MODULE, __doc__)
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of ONNX graphs")
    parser.add_argument("--level", type=number_from(0), default=0, help="level of the prior (default: %(default)s)")
    parser.add_argument("--slots", type=number_from(1), default=1, help="songs sampled at once (default: %(default)s)")
    parser.add_argument("--threads", type=number_from(1), help="CPU threads (default: as many as speed it up)")
    parser.add_argument("--mapped", action="store_true", help="also open float weights memory-mapped")
    parser.add_argument("--rounds", type=number_from(1), default=ROUNDS, help="counted rounds (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    return parser


@in_sentences
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script; the docstring of the module describes it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--once"]:
        opening = config_from_dict(Opening, json.loads(words[1]), "opening")
        print(json.dumps(asdict(open_once(opening, float(words[2])))))
        return
    options = _parser().parse_args(words)
    results = measure(_openings(options), options.rounds, open_in_process)
    write_json_atomic(options.out, new_record(_MODULE, words, results))
    for result in results:
        print(json.dumps({name: result[name] for name in ("bundle", "mapped", "median")}))


if __name__ == "__main__":
    main()
