"""Names, units and phrases for what was measured, used by all reports."""

from __future__ import annotations

from collections.abc import Iterable

from jukebox_deploy.benchmarks.results import (
    STEADY,
    Backend,
    Latency,
    Spread,
    Workload,
    WorkloadKind,
    WorkloadResult,
)
from jukebox_deploy.benchmarks.workload_groups import Axis, axis_value, base_model
from jukebox_deploy.engines.installed_gpus import Gpu
from jukebox_deploy.quantities import NOT_MEASURED, TIMES, byte_size, number, percent, seconds, short, times

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
"""The names of the backends in headings of tables."""


def unit_of(kind: WorkloadKind) -> str:
    """Return the unit of speeds; seconds of audio per second are written as multiples of real time."""
    return _UNIT[kind]


def title_of(workload: Workload, without: Axis | None = None) -> str:
    """Return the title of a workload: `Step of upsampler, level 0, 4 slots, position 4,096 of 8,192`.

    `without`: the axis of a sweep, whose value is left out.
    """
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
    """Return the phrase for the work that `workload_groups.cost` is the cost of, for instance `a step`."""
    return _WORK[kind]


def tail_of(latency: Latency) -> str:
    """Return the 99th percentile of the latency; if too few calls were timed, the slowest call and their number."""
    if latency.supports_p99:
        return f"p99 {seconds(latency.p99)}"
    if latency.maximum is None:
        return NOT_MEASURED
    return f"max {seconds(latency.maximum)} of {latency.calls}"


def unsteady(result: WorkloadResult) -> str | None:
    """Return a warning, in lower case, if the rounds of some variants differ by more than `STEADY`; else `None`."""
    ranges = [f"{v.name} by {percent(v.round_range)}" for v in result.variants if not v.is_steady]
    if not ranges:
        return None
    return (
        f"rounds differ by more than {percent(STEADY)} of their median: {', '.join(ranges)}. Other programs may have "
        "disturbed them; measure again, or with more --rounds."
    )


def axis_name(axis: Axis) -> str:
    """Return the name of an axis, with its unit."""
    return _AXIS[axis]


def factor_range(values: Iterable[float]) -> str:
    """Format the smallest and the largest of the factors, with one number if they are equal as text."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(times(end) for end in (ordered[0], ordered[-1])))


def quartiles(spread: Spread) -> str:
    """Format the quartiles, between which the middle half of the rounds lies."""
    return f"{number(spread.lower_quartile)} to {number(spread.upper_quartile)}"


def describe_gpu(gpu: Gpu) -> str:
    """Format a GPU: `NVIDIA L4, 24.0 GB, compute capability 8.9, driver 550.54`."""
    driver = "" if gpu.driver is None else f", driver {gpu.driver}"
    return f"{gpu.name}, {byte_size(gpu.memory_bytes)}, compute capability {gpu.compute_capability}{driver}"
