"""Hand-made benchmark documents, for the tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import (
    Backend,
    BenchmarkRun,
    Latency,
    MemoryLimit,
    VariantResult,
    Workload,
    WorkloadKind,
    WorkloadResult,
)

HOSTILE = '</code><script>alert(1)</script><img src=x onerror="alert(1)"> $\\frac{$ \x00 \u202e \ud800 |'

MACHINE = Machine("a processor", 2, 1 << 34, "a system", "3.11", {"torch": "2.13.0"}, 2e10)
BANDWIDTH = 1e4  # bytes per second


def variant(
    backend: Backend, speed: float, weights: str = "fp32", *, spread: float = 0.02, **fields: Any
) -> VariantResult:
    """Five rounds around a speed; calls of one unit."""
    rounds = tuple(speed * (1.0 + spread * offset) for offset in (-1.0, -0.5, 0.0, 0.5, 1.0))
    latency = Latency(1.0 / speed, 1.2 / speed, 1.5 / speed, 1.6 / speed, 500)
    return VariantResult(
        backend, "fp32", weights, **({"threads": 2} | fields), units_per_second=rounds, latency=latency
    )


def limit(step_bytes: int) -> MemoryLimit:
    """So many bytes, at `BANDWIDTH`."""
    return MemoryLimit(step_bytes - 20, 20, step_bytes, BANDWIDTH)


def step(model: str = "small", **fields: Any) -> Workload:
    """A step with all sizes known."""
    sizes = {"slots": 1, "position": 512, "width": 64, "depth": 4, "context": 1024}
    return Workload(WorkloadKind.STEP, model, 0, **{**sizes, "units_per_pass": 32.0, **fields})


def step_result(workload: Workload, engine_speed: float, *, baselines: bool = False) -> WorkloadResult:
    """ONNX Runtime in fp32 (80 % of its limit at 8 codes/s and one slot) and int8, and perhaps the baselines."""
    engines = [
        variant(Backend.ONNXRUNTIME, engine_speed, limit=limit(1000), load_seconds=0.25, first_seconds=0.5),
        variant(Backend.ONNXRUNTIME, 2.0 * engine_speed, "int8", limit=limit(400), notes=("calibrated",)),
    ]
    compared = [
        variant(Backend.EAGER, engine_speed / 4.0),
        variant(Backend.EAGER_STATIC, engine_speed / 2.0, peak_memory_bytes=3_000_000_000),
    ]
    return WorkloadResult(workload, tuple(engines + compared * baselines))


BASE = step_result(step(), 8.0, baselines=True)
SLOTS = tuple(step_result(step(slots=slots), 8.0 * slots**0.5) for slots in (4, 16))
WIDE = step_result(step("small-width-128", width=128), 2.0)
_AUDIO = Workload(WorkloadKind.DECODE, "small", 0, units_per_pass=10.0)
DECODE = WorkloadResult(_AUDIO, (variant(Backend.ONNXRUNTIME, 3.0), variant(Backend.EAGER, 1.5)))

RUN = BenchmarkRun("jukebox-deploy bench run", "2026-01-02T00:00:00Z", MACHINE, (BASE, *SLOTS, DECODE))
WIDE_RUN = replace(RUN, date="2026-01-03T00:00:00Z", results=(WIDE,))


def hostile_run() -> BenchmarkRun:
    """Every text that a file may choose freely tries to become markup, mathematics or a direction mark."""
    machine = replace(MACHINE, processor=HOSTILE, system=HOSTILE, python=HOSTILE, packages={HOSTILE: HOSTILE})
    engine = replace(BASE.variants[0], precision=HOSTILE, weights=HOSTILE, notes=(HOSTILE,))
    results = tuple(WorkloadResult(step(HOSTILE, slots=slots), (engine, *BASE.variants[1:])) for slots in (1, 4))
    return BenchmarkRun(HOSTILE, HOSTILE, machine, results)
