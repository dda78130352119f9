"""Measure the peak memory of importing checkpoints of the released sizes, with random weights.

    python -m jukebox_deploy.benchmarks.checkpoint_memory --preset 1b_lyrics --levels 1 2

Each import runs in a separate process. Linux only: the peak is the kernel's `VmHWM`. It includes mapped files, although
the system can drop their pages.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jukebox_deploy.benchmarks.process_memory import memory_field, output_of
from jukebox_deploy.benchmarks.scripts import in_sentences, new_record, number_from, result_file, script_parser
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.files import write_json_atomic
from jukebox_deploy.presets import preset

_MODULE = "jukebox_deploy.benchmarks.checkpoint_memory"


@dataclasses.dataclass(frozen=True)
class Case:
    """An import to measure."""

    name: str
    format: str  # "openai" or "huggingface"
    inputs: tuple[Path, ...]  # checkpoint files of OpenAI's, or one folder of Hugging Face's

    @property
    def files(self) -> list[Path]:
        """The files that hold weights."""
        if self.format == "openai":
            return list(self.inputs)
        return sorted(self.inputs[0].glob("*.safetensors"))


def measure_in_this_process(format_name: str, inputs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Run an import in this process; return the memory before it and the peak, in bytes, and its seconds."""
    from jukebox_deploy.checkpoints.huggingface import import_huggingface
    from jukebox_deploy.checkpoints.openai import import_openai

    before = memory_field("VmHWM")
    start = time.perf_counter()
    if format_name == "openai":
        import_openai(inputs, None, out)
    else:
        import_huggingface(inputs[0], out)
    seconds = time.perf_counter() - start
    return {"baseline_bytes": before, "peak_bytes": memory_field("VmHWM"), "seconds": round(seconds, 2)}


def measure(case: Case, scratch: Path) -> dict[str, Any]:
    """Run an import in a separate process; return its memory and time, file sizes, and ratios to the largest file.

    Raises `EngineError` if the import fails.
    """
    out = scratch / "bundle"
    command = [sys.executable, "-m", _MODULE, "--measure", case.format, "--out", str(out), *map(str, case.inputs)]
    result: dict[str, Any] = json.loads(output_of(command, f"the import of {case.name} failed"))
    shutil.rmtree(out)
    largest = max(path.stat().st_size for path in case.files)
    return {
        "case": case.name,
        "files": {path.name: path.stat().st_size for path in case.files},
        "largest_file_bytes": largest,
        **result,
        "peak_over_largest_file": round(result["peak_bytes"] / largest, 3),
        "growth_over_largest_file": round((result["peak_bytes"] - result["baseline_bytes"]) / largest, 3),
    }


def run(config: JukeboxConfig, scratch: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Write random checkpoints of a model in each supported layout, and measure the import of each."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.checkpoints.exporting import export_huggingface
    from jukebox_deploy.checkpoints.openai import import_openai
    from jukebox_deploy.checkpoints.random_bundle import write_random_openai_checkpoint

    report("writing random checkpoints ...")
    vqvae, *priors = write_random_openai_checkpoint(config, scratch / "openai")
    import_openai([vqvae, *priors], config, scratch / "source")
    export_huggingface(CheckpointBundle.open(scratch / "source"), scratch / "huggingface")
    shutil.rmtree(scratch / "source")
    cases = [Case("vqvae, older format", "openai", (vqvae,))]
    cases += [Case(f"{prior.name.split('.')[0]}, older format", "openai", (vqvae, prior)) for prior in priors]
    cases.append(Case("all, older format", "openai", (vqvae, *priors)))
    cases.append(Case("all, zip format", "openai", tuple(_as_zip([vqvae, *priors], scratch / "zip"))))
    cases.append(Case("all, Hugging Face", "huggingface", (scratch / "huggingface",)))
    results = []
    for case in cases:
        results.append(measure(case, scratch))
        report(f"{case.name}: {results[-1]}")
    return results


def _as_zip(files: Sequence[Path], out: Path) -> list[Path]:
    """Write the checkpoints again in PyTorch's newer format, a zip archive; return the new files."""
    import torch

    out.mkdir()
    for path in files:
        torch.save(torch.load(path, weights_only=True), out / path.name)
    return [out / path.name for path in files]


@in_sentences
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script; the docstring of the module describes it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = script_parser(_MODULE, __doc__)
    parser.add_argument("--preset", default="1b_lyrics", help="sizes of the model (default: %(default)s)")
    parser.add_argument(
        "--levels", type=number_from(0), nargs="*", help="levels of the priors to import (default: all)"
    )
    parser.add_argument("--scratch", type=Path, help="folder for temporary files (five times the model)")
    parser.add_argument("--out", type=Path, help="result file (default: in benchmarks/results)")
    parser.add_argument("--measure", choices=["openai", "huggingface"], help=argparse.SUPPRESS)
    parser.add_argument("inputs", type=Path, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.measure:
        print(json.dumps(measure_in_this_process(options.measure, options.inputs, options.out)))
        return
    config = preset(options.preset)
    if options.levels is not None:
        config = dataclasses.replace(config, priors=tuple(config.prior(level) for level in sorted(set(options.levels))))
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="checkpoint-memory-") as scratch:
        results = run(config, Path(scratch), lambda line: print(line, file=sys.stderr, flush=True))
    write_json_atomic(options.out or result_file("checkpoint-import"), new_record(_MODULE, words, results))


if __name__ == "__main__":
    main()
