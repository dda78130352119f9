"""What a benchmark run measures, and its division into stages that open their graphs once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.benchmarks.results import Backend, Workload, WorkloadKind
from jukebox_deploy.benchmarks.rounds import MIN_ROUNDS, Task
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
from jukebox_deploy.engines.device import Provider
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
"""The graph that each workload runs; a song runs all of them."""


@dataclass(frozen=True)
class BenchmarkPlan:
    """The options of a run. Raises `ConfigError` for numbers that cannot be timed and options that exclude each other.

    Positions, levels and numbers of slots are checked against a model by `plan_stages` and `check_plan`.
    """

    workloads: tuple[WorkloadKind, ...] = (WorkloadKind.STEP, WorkloadKind.PREFILL)
    level: int | None = None  # `None`: every prior of the bundle; encode and decode at level 0; not for songs
    slots: tuple[int, ...] = (1, 4)  # each number is measured
    steps: int = 64  # per pass
    rounds: int = MIN_ROUNDS
    threads: int | None = None  # of every variant; `None`: as many as speed up its graph
    seconds: float = 10.0  # of audio, to encode or decode, or per song
    songs: int | None = None  # number of songs that the slots sample; `None`: one per slot
    position: int | None = None  # of the first step in the window; `None`: the middle of the window
    baselines: tuple[Backend, ...] | None = None  # `None`: all that run on the device
    only_baselines: bool = False  # the engine bundles only provide declarations and are not run
    mapped: bool = False  # also measure engines with memory-mapped weights
    memory: bool = False  # also measure the peak memory of each variant, in a separate process
    device: Provider = Provider.CPU  # of every variant; one of `PYTORCH_PROVIDERS`

    def __post_init__(self) -> None:
        if self.rounds < MIN_ROUNDS:
            raise ConfigError(f"{self.rounds} rounds are too few to judge their spread; give {MIN_ROUNDS} or more.")
        if self.steps < 1:
            raise ConfigError(f"{self.steps} steps cannot be timed; give 1 or more.")
        if self.songs is not None and self.songs < 1:
            raise ConfigError(f"{self.songs} songs cannot be timed; give 1 or more.")
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"{self.seconds} seconds of audio cannot be timed; give more than 0.")
        if self.level is not None and WorkloadKind.SONG in self.workloads:
            raise ConfigError(
                f"--level {self.level}: a song is sampled at every level; drop --level, or measure songs by themselves."
            )
        if self.only_baselines and self.mapped:
            raise ConfigError("--only-baselines measures no engines, and --mapped is for engines; drop one of them.")
        if self.only_baselines and not self.compared:
            raise ConfigError(
                "--only-baselines measures no engines, and no baselines are chosen; drop --only-baselines, "
                "or choose a baseline."
            )
        cpu_only = {"--threads": self.threads is not None, "--mapped": self.mapped, "--memory": self.memory}
        if self.device != Provider.CPU and (given := [option for option, is_given in cpu_only.items() if is_given]):
            raise ConfigError(f"{', '.join(given)}: works only with --device cpu, not with --device {self.device}.")

    @property
    def compared(self) -> tuple[Backend, ...]:
        """The baselines that engines are compared with: the chosen ones, or all that run on the device."""
        return baselines_of(self.device) if self.baselines is None else self.baselines


@dataclass(frozen=True)
class Stage:
    """Workloads that are measured on the same open graphs."""

    kinds: tuple[WorkloadKind, ...]
    prior: PriorConfig | None  # `None` for encode, decode and songs
    graph: GraphSpec  # the graph whose weights determine the number of threads
    slots: int
    open: Callable[[Engine], object]
    tasks: tuple[tuple[Workload, Callable[[object], Task]], ...]  # functions from what `open` returned to the task

    @property
    def title(self) -> str:
        """The stage's name in progress messages."""
        return f"level {self.graph.level}, {self.slots} slot{'s' * (self.slots != 1)}"


def plan_stages(config: JukeboxConfig, graphs: dict[str, GraphSpec], plan: BenchmarkPlan, scratch: Path) -> list[Stage]:
    """Return the stages of a run over a bundle with these graphs, the top prior first; songs are written to `scratch`.

    Raises `EngineError` if the bundle lacks a graph or the number of slots, and `ConfigError` for a position that the
    window lacks, or songs of a model without a prior for each level.
    """
    planner = _Planner(config, graphs, plan, scratch)
    stages = list(planner.stages())
    if not stages:
        wanted = ", ".join(plan.workloads) or "no workload"
        raise EngineError(
            f"there is nothing to measure: the plan has {wanted}, and the bundle has "
            f"{', '.join(graphs) or 'no graphs'}; choose a workload whose graphs the bundle has."
        )
    return stages


def check_plan(config: JukeboxConfig, plan: BenchmarkPlan) -> None:
    """Raise what `plan_stages` would raise for a bundle with all graphs of the model, before any is exported."""
    plan_stages(config, declare_graphs(config, graph_options(plan)), plan, Path())


def graph_options(plan: BenchmarkPlan) -> GraphOptions:
    """Return the options for graphs that are exported in order to be measured: at least 16 slots."""
    return GraphOptions(slots=(1, 4, max(16, *plan.slots)))


class _Planner:
    def __init__(self, config: JukeboxConfig, graphs: dict[str, GraphSpec], plan: BenchmarkPlan, scratch: Path) -> None:
        self._config = config
        self._graphs = graphs
        self._plan = plan
        self._scratch = scratch

    def stages(self) -> Iterator[Stage]:
        """Yield the stages: step and prefill by prior and slots, then the others in the order of `WorkloadKind`."""
        wanted = self._plan.workloads
        slot_kinds = tuple(kind for kind in (WorkloadKind.STEP, WorkloadKind.PREFILL) if kind in wanted)
        if slot_kinds:
            for level in self._levels(GraphKind.STEP):
                yield from (self._prior_stage(level, slots, slot_kinds) for slots in self._plan.slots)
        if WorkloadKind.CONDITION in wanted:
            yield from (self._condition_stage(level) for level in self._levels(GraphKind.CONDITION))
        for kind in (WorkloadKind.ENCODE, WorkloadKind.DECODE):
            if kind in wanted:
                yield self._audio_stage(kind)
        if WorkloadKind.SONG in wanted:
            yield from (self._song_stage(slots) for slots in self._plan.slots)

    def _levels(self, kind: GraphKind) -> list[int]:
        """Return the levels to measure, the top one first."""
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
        """Return the position of the first step; by default the middle of the window.

        There a step moves about the average number of bytes, which the memory limit is computed from.
        """
        stack = prior.transformer
        position = self._plan.position
        if position is None:
            position = stack.block_count // 2 * stack.block_length
        room = stack.context - position
        if not 0 <= position < stack.context or self._plan.steps > room:
            raise ConfigError(
                f"{self._plan.steps} steps from position {position} do not fit into the window of level "
                f"{prior.level}, which has {stack.context} positions; give at most {max(room, 0)} steps, "
                "or another position."
            )
        return position

    def _step_task(self, prior: PriorConfig, slots: int, position: int) -> tuple[Workload, Callable[[object], Task]]:
        steps = self._plan.steps
        work = self._workload(WorkloadKind.STEP, prior, slots, position, slots * steps)
        return work, lambda opened: StepTask(_slot_windows(opened), position, steps)

    def _prefill_task(self, prior: PriorConfig, slots: int, position: int) -> tuple[Workload, Callable[[object], Task]]:
        """Return the workload that prefills the blocks before the position of the first step."""
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
        graph = self._graph(GRAPHS[kind], level)
        rate = tokens_per_second(self._config.vqvae, level)
        codes = max(1, round(self._plan.seconds * rate))
        task = DecodeTask if kind is WorkloadKind.DECODE else EncodeTask
        work = Workload(kind, self._config.name, level, units_per_pass=codes / rate)

        def open_graph(engine: Engine) -> object:
            opened = OpenedGraphs(engine)
            opened.runner(GRAPHS[kind], level)  # here, so that it counts as loading and not as part of the first call
            return task(opened, level, codes)

        return Stage((kind,), None, graph, 1, open_graph, ((work, _as_task),))

    def _song_stage(self, slots: int) -> Stage:
        self._require_whole_model()
        seconds, folder = self._plan.seconds, self._scratch / "songs"
        songs = self._plan.songs or slots
        work = Workload(
            WorkloadKind.SONG, self._config.name, 0, slots, units_per_pass=songs * seconds, songs=self._plan.songs
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
        """Raise `ConfigError` or `EngineError` unless model and bundle have a prior for each level."""
        config, found = self._config, {prior.level for prior in self._config.priors}
        if missing := [level for level in range(config.vqvae.levels) if level not in found]:
            raise ConfigError(
                f"{config.name} cannot sample songs: it has no prior for level {', '.join(map(str, missing))}; "
                "choose a model with a prior for each level, or another workload."
            )
        for level in found:
            self._graph(GraphKind.STEP, level)


def _slot_windows(opened: object) -> SlotWindows:
    assert isinstance(opened, SlotWindows)
    return opened


def _as_task(opened: object) -> Task:
    assert isinstance(opened, ConditionTask | DecodeTask | EncodeTask | SongTask)
    return opened
