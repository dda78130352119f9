"""How reports call what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from jukebox_deploy.benchmarks.results import Backend, Latency, Spread, Workload, WorkloadKind, WorkloadResult
from jukebox_deploy.benchmarks.workload_groups import Axis, axis_value, base_model
from jukebox_deploy.quantities import NOT_MEASURED, TIMES, number, percent, seconds, short, times

_KIND = {
    WorkloadKind.STEP: "Step",
    WorkloadKind.PREFILL: "Prefill",
    WorkloadKind.CONDITION: "Conditioner",
    WorkloadKind.ENCODE: "VQ-VAE encode",
    WorkloadKind.DECODE: "VQ-VAE decode",
    WorkloadKind.SONG: "Song",
}

_UNIT = {
    WorkloadKind.STEP: "tokens/s",
    WorkloadKind.PREFILL: "tokens/s",
    WorkloadKind.CONDITION: "windows/s",
    WorkloadKind.ENCODE: f"{TIMES} real time",
    WorkloadKind.DECODE: f"{TIMES} real time",
    WorkloadKind.SONG: f"{TIMES} real time",
}

_WORK = {
    WorkloadKind.STEP: "a step",
    WorkloadKind.PREFILL: "a prefilled position",
    WorkloadKind.CONDITION: "a window's conditioning",
    WorkloadKind.ENCODE: "encoding",
    WorkloadKind.DECODE: "decoding",
    WorkloadKind.SONG: "making the songs",
}

_AXIS = {
    Axis.SLOTS: "slots",
    Axis.POSITION: "position in the window, in tokens",
    Axis.WIDTH: "width",
    Axis.DEPTH: "depth, in layers",
    Axis.CONTEXT: "context, in tokens",
    Axis.LENGTH: "length, in seconds of audio",
    Axis.SONGS: "songs",
}

BACKEND = {
    Backend.ONNXRUNTIME: "ONNX Runtime",
    Backend.TENSORRT_RTX: "TensorRT-RTX",
    Backend.TENSORRT: "TensorRT",
    Backend.EAGER: "eager",
    Backend.EAGER_STATIC: "eager-static",
    Backend.EAGER_RECORDED: "eager-recorded",
    Backend.TORCH_COMPILE: "torch.compile",
    Backend.HUGGING_FACE: "Hugging Face",
}


def unit_of(kind: WorkloadKind) -> str:
    """What speeds are counted in; seconds of audio per second are times real time."""
    return _UNIT[kind]


def title_of(workload: Workload, without: Axis | None = None) -> str:
    """`Step of upsampler, level 0, 4 slots, position 4,096 of 8,192`; without what a sweep varies."""
    model = workload.model if without is None else base_model(workload, without)
    parts = [f"{_KIND[workload.kind]} of {model}", f"level {workload.level}"]
    if without is not Axis.SLOTS:
        parts.append(f"{workload.slots} slot{'s' * (workload.slots != 1)}")
    if workload.songs is not None and without is not Axis.SONGS:
        parts.append(f"{workload.songs} song{'s' * (workload.songs != 1)}")
    if workload.position is not None and without not in (Axis.POSITION, Axis.CONTEXT):
        window = "" if workload.context is None else f" of {workload.context:,}"
        parts.append(f"position {workload.position:,}{window}")
    length = axis_value(workload, Axis.LENGTH)
    if length and without is not Axis.LENGTH:
        parts.append(f"{short(round(length, 2))} s of audio")
    return ", ".join(parts)


def work_of(kind: WorkloadKind) -> str:
    """What a cost is of: what all slots do once."""
    return _WORK[kind]


def tail_of(latency: Latency) -> str:
    """The slowest call in a hundred, or of fewer than tell it, the slowest of all."""
    if latency.tells_percentiles:
        return f"p99 {seconds(latency.p99)}"
    if latency.maximum is None:
        return NOT_MEASURED
    return f"max {seconds(latency.maximum)} of {latency.calls}"


def unsteady(result: WorkloadResult) -> str | None:
    """A warning of rounds that differ much."""
    ranges = [f"{percent(v.round_range)} ({v.name})" for v in result.variants if not v.is_steady]
    if not ranges:
        return None
    return (
        f"rounds range over {', '.join(ranges)} of their median. Other programs may have disturbed them: measure "
        "again, or with more --rounds."
    )


def axis_name(axis: Axis) -> str:
    """With what it is counted in."""
    return _AXIS[axis]


def span(values: Iterable[float]) -> str:
    """Least and largest factor, or one of them if they are written alike."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(times(end) for end in (ordered[0], ordered[-1])))


def quartiles(spread: Spread) -> str:
    """The middle half of the rounds."""
    return f"{number(spread.lower_quartile)} to {number(spread.upper_quartile)}"
