"""The peak memory of one variant in one workload, measured in a separate process.

Linux only: the peak is the kernel's `VmHWM`. It includes mapped files, although the system can drop their pages.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from jukebox_deploy.benchmarks.plan import BenchmarkPlan, plan_stages
from jukebox_deploy.benchmarks.process_memory import memory_field, output_of
from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
from jukebox_deploy.benchmarks.scripts import in_sentences
from jukebox_deploy.benchmarks.variants import open_subjects
from jukebox_deploy.config_json import config_from_dict, config_to_dict

_MODULE = "jukebox_deploy.benchmarks.variant_memory"


@dataclass(frozen=True)
class MemoryRequest:
    """The variant and the workload to measure, as passed to the separate process."""

    backend: Backend
    bundle: str
    checkpoint: str | None
    kind: WorkloadKind
    level: int
    slots: int
    threads: int
    steps: int
    seconds: float
    position: int | None
    mapped: bool
    songs: int | None = None

    @property
    def plan(self) -> BenchmarkPlan:
        """The benchmark plan that consists of this workload only."""
        return BenchmarkPlan(
            workloads=(self.kind,),
            level=self.level,
            slots=(self.slots,),
            steps=self.steps,
            seconds=self.seconds,
            position=self.position,
            songs=self.songs,
        )


def peak_memory(request: MemoryRequest) -> int:
    """Measure the peak memory in a separate process; return bytes.

    Raises `EngineError` if the process fails, with the last line of its error output.
    """
    command = [sys.executable, "-m", _MODULE, json.dumps(config_to_dict(request))]
    return int(output_of(command, f"the peak memory of {request.backend} could not be measured"))


def run_alone(request: MemoryRequest) -> int:
    """Open the variant in this process and run one pass of its workload; return the process's peak memory in bytes."""
    checkpoint = None if request.checkpoint is None else Path(request.checkpoint)
    subjects = open_subjects([Path(request.bundle)], checkpoint)
    engine = replace(subjects.engines[0], mapped=request.mapped)
    variant = engine if checkpoint is None else subjects.baseline(request.backend)
    with tempfile.TemporaryDirectory(prefix="jukebox-benchmark-") as scratch:
        (stage,) = plan_stages(subjects.config, subjects.first.graphs, request.plan, Path(scratch))
        ((_, make_task),) = stage.tasks
        task = make_task(stage.open(subjects.open(variant, request.threads)))
        task.rewind()
        task.run(task.calls)
        return memory_field("VmHWM")


@in_sentences
def main(request: str) -> None:
    """Print the peak memory that `run_alone` returns for a request in JSON."""
    print(run_alone(config_from_dict(MemoryRequest, json.loads(request), "request")))


if __name__ == "__main__":
    main(sys.argv[1])
