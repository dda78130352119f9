"""What is to be measured, and the stages in which it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.benchmarks.results import Backend, Workload, WorkloadKind
from jukebox_deploy.benchmarks.rounds import ROUNDS_AT_LEAST, Task
from jukebox_deploy.benchmarks.tasks import (
    PREFILL_BLOCKS,
    WINDOWS,
    ConditionTask,
    DecodeTask,
    EncodeTask,
    OpenedGraphs,
    PrefillTask,
    SlotWindows,
    SongTask,
    StepTask,
)
from jukebox_deploy.benchmarks.variants import baselines_of
from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, find_graph, graph_levels
from jukebox_deploy.costs import tokens_per_second
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.slots import require_slots
from jukebox_deploy.errors import ConfigError, EngineError
from jukebox_deploy.graphs import GraphOptions, declare_graphs

GRAPHS = {
    WorkloadKind.STEP: GraphKind.STEP,
    WorkloadKind.PREFILL: GraphKind.PREFILL,
    WorkloadKind.CONDITION: GraphKind.CONDITION,
    WorkloadKind.ENCODE: GraphKind.VQVAE_ENCODE,
    WorkloadKind.DECODE: GraphKind.VQVAE_DECODE,
}
"""The graph that a workload runs; a song runs all of them."""


@dataclass(frozen=True)
class BenchmarkPlan:
    """What a run measures."""

    workloads: tuple[WorkloadKind, ...] = (WorkloadKind.STEP, WorkloadKind.PREFILL)
    level: int | None = None  # `None`: every prior of the bundle, and sound at level 0
    slots: tuple[int, ...] = (1, 4)
    steps: int = 64  # per round
    rounds: int = ROUNDS_AT_LEAST
    threads: int | None = None  # of every variant; `None`: as many as pay
    seconds: float = 10.0  # of audio in a round, or of each song
    songs: int | None = None  # that the slots make; `None`: one each
    position: int | None = None  # of the first step; `None`: the middle of the window
    baselines: tuple[Backend, ...] | None = None  # `None`: all that run on the device
    only_baselines: bool = False  # engines give their tables and are not run
    mapped: bool = False  # measure engines with memory-mapped weights beside those that pack them
    memory: bool = False  # measure the peak of each variant in a process of its own
    device: str = "cpu"  # or "cuda": of every variant

    def __post_init__(self) -> None:
        if self.rounds < ROUNDS_AT_LEAST:
            raise ConfigError(f"{self.rounds} rounds say nothing of the spread; give at least {ROUNDS_AT_LEAST}.")
        if self.steps < 1:
            raise ConfigError(f"{self.steps} steps cannot be timed; give 1 or more.")
        if self.songs is not None and self.songs < 1:
            raise ConfigError(f"{self.songs} songs cannot be timed; give 1 or more.")
        if self.seconds <= 0:
            raise ConfigError(f"{self.seconds} seconds of audio cannot be timed; give more than 0.")
        if self.only_baselines and (self.mapped or not self.compared):
            reason = "--mapped is about engines" if self.mapped else "there are no baselines"
            raise ConfigError(f"{reason}: drop --only-baselines, or nothing is measured.")
        of_cpu = {"--threads": self.threads is not None, "--mapped": self.mapped, "--memory": self.memory}
        if self.device != "cpu" and (odd := [name for name, given in of_cpu.items() if given]):
            raise ConfigError(
                f"{', '.join(odd)}: about a CPU and its memory, so of no use with --device {self.device}."
            )

    @property
    def compared(self) -> tuple[Backend, ...]:
        """What engines are measured against."""
        return baselines_of(self.device) if self.baselines is None else self.baselines


@dataclass(frozen=True)
class Stage:
    """Workloads that share what is opened for them."""

    kinds: tuple[WorkloadKind, ...]
    prior: PriorConfig | None
    graph: GraphSpec  # whose weights decide about threads
    slots: int
    open: Callable[[Engine], object]
    tasks: tuple[tuple[Workload, Callable[[object], Task]], ...]

    @property
    def title(self) -> str:
        """For whoever waits."""
        return f"level {self.graph.level}, {self.slots} slots"


def plan_stages(config: JukeboxConfig, graphs: dict[str, GraphSpec], plan: BenchmarkPlan, scratch: Path) -> list[Stage]:
    """The stages of a run over a bundle with these graphs, the top prior first; songs write below `scratch`.

    Raises `EngineError` for graphs that the bundle lacks, `ConfigError` for what cannot be timed.
    """
    planner = _Planner(config, graphs, plan, scratch)
    stages = list(planner.stages())
    if not stages:
        wanted = ", ".join(plan.workloads)
        raise EngineError(f"the bundle has nothing to measure for {wanted}; it has {', '.join(graphs)}.")
    return stages


def check_plan(config: JukeboxConfig, plan: BenchmarkPlan) -> None:
    """Raise what measuring a model by a plan would raise, before anything is made for it."""
    plan_stages(config, declare_graphs(config, graph_options(plan)), plan, Path())


def graph_options(plan: BenchmarkPlan) -> GraphOptions:
    """Of the graphs that are exported to be measured."""
    return GraphOptions(slots=(1, 4, max(16, *plan.slots)))


class _Planner:
    def __init__(self, config: JukeboxConfig, graphs: dict[str, GraphSpec], plan: BenchmarkPlan, scratch: Path) -> None:
        self._config = config
        self._graphs = graphs
        self._plan = plan
        self._scratch = scratch

    def stages(self) -> Iterator[Stage]:
        """Step and prefill by prior and slots, then the rest in the order of `WorkloadKind`."""
        wanted = self._plan.workloads
        slotted = tuple(kind for kind in (WorkloadKind.STEP, WorkloadKind.PREFILL) if kind in wanted)
        if slotted:
            for level in self._levels(GraphKind.STEP):
                yield from (self._prior_stage(level, slots, slotted) for slots in self._plan.slots)
        if WorkloadKind.CONDITION in wanted:
            yield from (self._condition_stage(level) for level in self._levels(GraphKind.CONDITION))
        for kind in (WorkloadKind.ENCODE, WorkloadKind.DECODE):
            if kind in wanted:
                yield self._audio_stage(kind)
        if WorkloadKind.SONG in wanted:
            yield from (self._song_stage(slots) for slots in self._plan.slots)

    def _levels(self, kind: GraphKind) -> list[int]:
        if self._plan.level is not None:
            return [self._graph(kind, self._plan.level).level]
        return graph_levels(self._graphs, kind)[::-1]

    def _graph(self, kind: GraphKind, level: int) -> GraphSpec:
        return find_graph(self._graphs, kind, level)

    def _prior_stage(self, level: int, slots: int, kinds: tuple[WorkloadKind, ...]) -> Stage:
        prior = self._config.prior(level)
        position = self._position(prior)
        step = self._graph(GraphKind.STEP, level)
        require_slots(step, slots)
        tasks = {
            WorkloadKind.STEP: self._step_task(prior, slots, position),
            WorkloadKind.PREFILL: self._prefill_task(prior, slots, position),
        }
        return Stage(
            kinds,
            prior,
            step,
            slots,
            lambda engine: SlotWindows(engine, level, slots),
            tuple(tasks[kind] for kind in kinds),
        )

    def _position(self, prior: PriorConfig) -> int:
        """Where steps begin; in the middle of the window a step moves about the average of bytes."""
        stack = prior.transformer
        position = self._plan.position
        if position is None:
            position = stack.block_count // 2 * stack.block_length
        room = stack.context - position
        if not 0 <= position < stack.context or self._plan.steps > room:
            raise ConfigError(
                f"{self._plan.steps} steps from position {position} do not fit into the window of level "
                f"{prior.level}, which has {stack.context}; give at most {max(room, 0)}, or another position."
            )
        return position

    def _step_task(self, prior: PriorConfig, slots: int, position: int) -> tuple[Workload, Callable[[object], Task]]:
        steps = self._plan.steps
        work = self._workload(WorkloadKind.STEP, prior, slots, position, slots * steps)
        return work, lambda opened: StepTask(_slot_windows(opened), position, steps)

    def _prefill_task(self, prior: PriorConfig, slots: int, position: int) -> tuple[Workload, Callable[[object], Task]]:
        block = prior.transformer.block_length
        start = max(0, position // block - PREFILL_BLOCKS) * block
        work = self._workload(WorkloadKind.PREFILL, prior, slots, start, slots * PREFILL_BLOCKS * block)
        return work, lambda opened: PrefillTask(_slot_windows(opened), start, block)

    def _workload(
        self, kind: WorkloadKind, prior: PriorConfig, slots: int, position: int | None, units: float
    ) -> Workload:
        stack = prior.transformer
        return Workload(
            kind, self._config.name, prior.level, slots, position, units, stack.width, stack.depth, stack.context
        )

    def _condition_stage(self, level: int) -> Stage:
        prior = self._config.prior(level)
        work = self._workload(WorkloadKind.CONDITION, prior, 1, None, WINDOWS)
        return Stage(
            (WorkloadKind.CONDITION,),
            prior,
            self._graph(GraphKind.CONDITION, level),
            1,
            lambda engine: ConditionTask(engine.runner(GraphKind.CONDITION, level), self._config),
            ((work, _as_task),),
        )

    def _audio_stage(self, kind: WorkloadKind) -> Stage:
        level = self._plan.level or 0
        rate = tokens_per_second(self._config.vqvae, level)
        codes = max(1, round(self._plan.seconds * rate))
        task = DecodeTask if kind is WorkloadKind.DECODE else EncodeTask
        work = Workload(kind, self._config.name, level, units_per_round=codes / rate)
        return Stage(
            (kind,),
            None,
            self._graph(GRAPHS[kind], level),
            1,
            lambda engine: task(OpenedGraphs(engine), level, codes),
            ((work, _as_task),),
        )

    def _song_stage(self, slots: int) -> Stage:
        self._require_whole_model()
        seconds, folder = self._plan.seconds, self._scratch / "songs"
        songs = self._plan.songs or slots
        work = Workload(
            WorkloadKind.SONG, self._config.name, 0, slots, units_per_round=songs * seconds, songs=self._plan.songs
        )
        return Stage(
            (WorkloadKind.SONG,),
            None,
            self._graph(GraphKind.STEP, 0),
            slots,
            lambda engine: SongTask(OpenedGraphs(engine), slots, songs, seconds, folder),
            ((work, _as_task),),
        )

    def _require_whole_model(self) -> None:
        """For songs."""
        config, found = self._config, {prior.level for prior in self._config.priors}
        if missing := [level for level in range(config.vqvae.levels) if level not in found]:
            raise ConfigError(f"{config.name} makes no songs: it has no prior for the levels {missing}.")
        for level in found:
            self._graph(GraphKind.STEP, level)


def _slot_windows(opened: object) -> SlotWindows:
    assert isinstance(opened, SlotWindows)
    return opened


def _as_task(opened: object) -> Task:
    assert isinstance(opened, ConditionTask | DecodeTask | EncodeTask | SongTask)
    return opened
