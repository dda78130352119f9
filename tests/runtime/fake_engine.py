"""An engine without a network: the state machine of prefill and step, with hashes for logits.

Everything a window is made of (start row, conditioning rows, lyric keys, every earlier code, the
position) goes into a running hash, and the logits are random numbers seeded by it. So whatever the
runtime wires wrongly changes the codes. Prefill and step hash differently, as two kernels round
differently: a runtime that prefills codes which were sampled gets other codes, too. So it is
with the number of slots that are computed together, if the engine is not batch-invariant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Role, check_feeds, find_graph, numpy_dtype
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.receptive_field import decoder_receptive_field, encoder_receptive_field


class PowerCutError(Exception):
    """What the tests throw into a running step."""


def digest(*parts: object) -> int:
    """A 64-bit number for anything that arrays and numbers are made of."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        state.update(b";")
    return int.from_bytes(state.digest(), "little")


def noise(shape: tuple[int, ...], *parts: object) -> np.ndarray:
    return np.random.default_rng(digest(*parts)).standard_normal(shape, np.float32)


def choose(logits: np.ndarray, temperature: np.float32, top_k: int, top_p: np.float32, uniform: float) -> int:
    """The code that the filters and the inverse CDF give (specification 12.3)."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    if top_k:
        scaled = np.where(scaled < np.sort(scaled)[-min(top_k, len(scaled))], -np.inf, scaled)
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    if top_p:
        order = np.argsort(-probabilities, kind="stable")
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before > top_p]] = 0
    cumulated = np.cumsum(probabilities)
    return int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))


@dataclass
class Faults:
    """What goes wrong, and when."""

    steps_until_power_cut: int | None = None
    not_finite_from: int | None = None  # first position at which the logits are not numbers
    rounding: str = ""  # another one gives other logits


class FakeSession:
    """Slots with buffers as the step's table declares them; the caches are one running hash."""

    def __init__(
        self, prior: PriorConfig, spec: GraphSpec, slots: int, faults: Faults, batch_invariant: bool = True
    ) -> None:
        self.batch_invariant = batch_invariant
        self.prior = prior
        self.spec = spec
        self.slots = slots
        self.faults = faults
        self.steps = 0
        self.prefills: list[range] = []
        self._buffers = {
            tensor.name: np.zeros(tensor.shape({"B": slots}), numpy_dtype(tensor.dtype)) for tensor in spec.tensors
        }
        # Not zero: what an earlier window left behind must not matter.
        self._memory = np.full((slots, prior.transformer.context), 77, np.uint64)
        self._cross = [n for n in self._buffers if n.startswith("cross_")]

    def write(self, tensor: str, slot: int, value: np.ndarray) -> None:
        spec = self.spec.tensor(tensor)
        assert spec.role is not Role.OUTPUT
        buffer = self._buffers[tensor]
        assert value.shape == buffer.shape[1:], f"{tensor}: {value.shape} is not {buffer.shape[1:]}"
        assert value.dtype == buffer.dtype, f"{tensor}: {value.dtype} is not {buffer.dtype}"
        buffer[slot] = value

    def read(self, tensor: str, slot: int) -> np.ndarray:
        return self._buffers[tensor][slot].copy()

    def prefill(self, slots: range) -> None:
        assert slots.step == 1
        assert 0 <= slots.start < slots.stop <= self.slots
        self.prefills.append(slots)
        block = self.prior.transformer.block_length
        assert any(self._buffers["known_end"][slot] for slot in slots), "nobody in this run is at work"
        for slot in slots:
            position, known_end = (int(self._buffers[name][slot]) for name in ("position", "known_end"))
            if not self.batch_invariant and position == known_end == 0:
                continue  # an idle slot, there for the company
            assert position < known_end, "nothing is left to prefill in this slot"
            assert position % block == 0, "a prefill chunk is a whole block"
            end = min(position + block, known_end)
            for p in range(position, end):
                self._remember(slot, p, "prefill", len(slots))
            self._buffers["position"][slot] = end

    def step(self, count: int) -> None:
        assert count >= 1
        for _ in range(count):
            if self.faults.steps_until_power_cut is not None:
                if self.faults.steps_until_power_cut == 0:
                    raise PowerCutError
                self.faults.steps_until_power_cut -= 1
            self.steps += 1
            for slot in range(self.slots):
                self._step_slot(slot)

    def _step_slot(self, slot: int) -> None:
        buffers = self._buffers
        position = int(buffers["position"][slot])
        if position >= buffers["window_end"][slot]:
            return
        self._remember(slot, position, "step", self.slots)
        logits = 2 * noise((self.prior.bins,), "logits" + self.faults.rounding, self._memory[slot, position])
        # What is no number stays in the caches, and so do its consequences.
        buffers["not_finite"][slot] |= (
            self.faults.not_finite_from is not None and position >= self.faults.not_finite_from
        )
        if position >= buffers["known_end"][slot]:
            temperature, top_k, top_p = (buffers[name][slot] for name in ("temperature", "top_k", "top_p"))
            uniform = buffers["uniform"][slot, position]
            buffers["codes"][slot, position] = choose(logits, temperature, top_k, top_p, uniform)
        buffers["position"][slot] = position + 1

    def _remember(self, slot: int, position: int, kernel: str, together: int) -> None:
        """Extend the running hash by a position; so many slots are computed together."""
        buffers = self._buffers
        kernel = kernel if self.batch_invariant else f"{kernel} of {together}"
        before: tuple[object, ...] = ("begin", *(buffers[n][slot] for n in ("start",) if n in buffers))
        if position:
            before = (self._memory[slot, position - 1], int(buffers["codes"][slot, position - 1]))
        row = buffers["conditioning"][slot, position] if "conditioning" in buffers else None
        cross = [buffers[name][slot] for name in self._cross]
        self._memory[slot, position] = digest(self.prior.level, kernel, position, *before, row, *cross)


@dataclass
class FakeRunner:
    """Hashes its inputs into its outputs; the VQ-VAE's graphs sum over their exact receptive fields."""

    config: JukeboxConfig
    spec: GraphSpec
    calls: list[dict[str, np.ndarray]] = field(default_factory=list)
    concurrent_calls = 1  # without an annotation: of the class, so that a test can set it

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes = check_feeds(self.spec, feeds)
        self.calls.append({name: value.copy() for name, value in feeds.items()})
        if self.spec.kind is GraphKind.VQVAE_DECODE:
            return {"audio": np.stack([self._decode(codes) for codes in feeds["codes"]])}
        if self.spec.kind is GraphKind.VQVAE_ENCODE:
            return {"codes": np.stack([self._encode(audio[0]) for audio in feeds["audio"]])}
        return {tensor.name: self._hashed(tensor.name, tensor.shape(sizes), feeds) for tensor in self.spec.outputs}

    def _hashed(self, name: str, shape: tuple[int, ...], feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        assert shape[0] == 1
        return noise(shape, name, *(feeds[key] for key in sorted(feeds)))

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        """`[T]` -> `[1, hop*T]`: every sample is a sum over the codes it may see, and its place in the hop."""
        field_ = decoder_receptive_field(self.config.vqvae, self.spec.level)
        padded = np.pad(codes + 1, (field_.before, field_.after))
        weights = 1 + np.arange(field_.before + field_.after + 1) % 5
        sums = np.correlate(padded, weights)
        hop = self.config.vqvae.hop_length(self.spec.level)
        samples = np.repeat(sums, hop) * 16 + np.tile(np.arange(hop), len(codes))
        return (samples[None] / 2.0**20).astype(np.float32)

    def _encode(self, audio: np.ndarray) -> np.ndarray:
        """`[hop*T]` -> `[T]`: every code is a hash of the exact samples it may see."""
        field_ = encoder_receptive_field(self.config.vqvae, self.spec.level)
        hop = self.config.vqvae.hop_length(self.spec.level)
        padded = np.pad(audio, (field_.before, field_.after))
        reach = field_.before + 1 + field_.after
        codes = [digest(padded[t : t + reach]) for t in range(0, len(audio), hop)]
        return np.array([code % self.config.vqvae.codebook_size for code in codes], np.int64)


class FakeEngine:
    """All graphs of a model, opened."""

    def __init__(
        self,
        config: JukeboxConfig,
        faults: Faults | None = None,
        slots: tuple[int, int, int] = (1, 4, 16),
        batch_invariant: bool = True,
    ) -> None:
        self.batch_invariant = batch_invariant
        self.config = config
        self.graphs = declare_graphs(config, GraphOptions(slots=slots))
        self.faults = faults or Faults()
        self.sessions: list[FakeSession] = []
        self.runners: list[FakeRunner] = []

    def runner(self, kind: GraphKind, level: int) -> FakeRunner:
        self.runners.append(FakeRunner(self.config, find_graph(self.graphs, kind, level)))
        return self.runners[-1]

    def prior_session(self, level: int, slots: int) -> FakeSession:
        spec = find_graph(self.graphs, GraphKind.STEP, level)
        assert spec.range("B").minimum <= slots <= spec.range("B").maximum
        self.sessions.append(FakeSession(self.config.prior(level), spec, slots, self.faults, self.batch_invariant))
        return self.sessions[-1]

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *details: object) -> None:
        return None
