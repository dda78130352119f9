"""How reports call things and write quantities: short, in units that people read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jukebox_deploy.benchmarks.results import Backend, Spread, Workload, WorkloadKind
from jukebox_deploy.benchmarks.workload_groups import SIZES, Axis, axis_value

NOT_MEASURED = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"

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
    WorkloadKind.ENCODE: f"{_TIMES} real time",
    WorkloadKind.DECODE: f"{_TIMES} real time",
    WorkloadKind.SONG: f"{_TIMES} real time",
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

_SMALLER_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_LARGER_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def unit_of(kind: WorkloadKind) -> str:
    """What speeds are counted in; seconds of audio per second are times real time."""
    return _UNIT[kind]


def title_of(workload: Workload, without: Axis | None = None) -> str:
    """`Step of upsampler, level 0, 4 slots, position 4,096 of 8,192`; without what a sweep varies."""
    model = "" if without in SIZES else f" of {workload.model}"
    parts = [_KIND[workload.kind] + model, f"level {workload.level}"]
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


def axis_name(axis: Axis) -> str:
    """With what it is counted in."""
    return _AXIS[axis]


def number(value: float) -> str:
    """Three significant digits, and all digits before the point."""
    if 0.0 < abs(value) < 1.0:
        return f"{value:#.3g}"
    return f"{value:,.{max(0, 3 - len(f'{abs(value):.0f}'))}f}" if value else "0"


def short(value: float) -> str:
    """As few digits as say the same: for round numbers, along an axis."""
    return f"{value:,.10g}"


def seconds(value: float | None, written: Callable[[float], str] = number) -> str:
    """In s, ms or µs."""
    return _scaled(value, _SMALLER_SECONDS, written)


def byte_size(value: float | None) -> str:
    """In GB, MB or kB, each a thousand of the next."""
    return _scaled(value, _LARGER_BYTES, number)


def percent(share: float | None) -> str:
    """Of one."""
    return NOT_MEASURED if share is None else f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


def times(ratio: float | None, written: Callable[[float], str] = number) -> str:
    """As a factor."""
    return NOT_MEASURED if ratio is None else f"{written(ratio)}{_TIMES}"


def span(values: Iterable[float]) -> str:
    """Least and largest factor, or one of them if they are written alike."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(times(end) for end in (ordered[0], ordered[-1])))


def quartiles(spread: Spread) -> str:
    """The middle half of the rounds."""
    return f"{number(spread.lower_quartile)} to {number(spread.upper_quartile)}"


def _scaled(value: float | None, units: tuple[tuple[float, str], ...], written: Callable[[float], str]) -> str:
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    scale, unit = next(((s, u) for s, u in units if value >= s), units[-1])
    return f"{written(value / scale)} {unit}"
