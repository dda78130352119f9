"""What every backend must do on a GPU. `test_suite.py` tries it on a CPU first, so that it is the GPU that is tested.

Every function takes the engine in question and one to compare with, and fails with an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, find_graph
from jukebox_deploy.engine import Engine, PriorSession
from jukebox_deploy.export.feeds import random_feeds
from jukebox_deploy.jobs.comparison.parity import compare_graph, sizes_to_compare
from jukebox_deploy.jobs.comparison.window_runs import (
    StretchPlace,
    WindowStretch,
    make_stretch,
    run_given_codes,
    run_greedy_codes,
)
from jukebox_deploy.runtime.events import Event, LevelProgress
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.song import SongRequest
from jukebox_deploy.runtime.store import Fingerprint, read_codes

SEED = 7
SLACK = 8 << 20
"""Bytes by which the memory in use may wander: other programs, and modules that CUDA loads late."""


def check_graph(model: Engine, engine: Engine, spec: GraphSpec) -> None:
    """One graph on random inputs, at two sizes."""
    for sizes in sizes_to_compare(spec):
        rows = compare_graph(lambda: model, engine, spec, sizes, SEED)
        assert [str(row) for row in rows if not row.holds] == []


def check_given_codes(model: Engine, engine: Engine, level: int, slots: int = 2) -> None:
    """Prefill, then steps over given codes: the logits of each, or the caches afterwards."""
    stretch = stretch_of(model, level, slots)
    prior = engine.config.prior(level)
    expected, found = (run_given_codes(e.prior_session(level, stretch.slots), prior, stretch) for e in (model, engine))
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-4 * np.abs(values).max(), name


def check_chosen_codes(model: Engine, engine: Engine, level: int, steps: int = 48) -> None:
    """Steps that choose the most likely code after a prefill, and steps that draw codes. Code for code the same."""
    stretch = stretch_of(model, level)
    prior = engine.config.prior(level)
    expected, found = (run_greedy_codes(e.prior_session(level, stretch.slots), prior, stretch) for e in (model, engine))
    np.testing.assert_array_equal(found, expected)
    expected, found = (_drawn_codes(e, level, steps) for e in (model, engine))
    np.testing.assert_array_equal(found, expected)


DRAWN_SONGS = [6, 51]
"""Songs whose draws no rounding decides: every random number is `CLEAR` away from where the next code begins."""

CLEAR = 5e-5
"""A hundred times what sums in another order changed of the cumulative probabilities, on a CPU."""


def _drawn_codes(engine: Engine, level: int, steps: int) -> np.ndarray:
    session = engine.prior_session(level, len(DRAWN_SONGS))
    _fill(session, engine, level, steps, DRAWN_SONGS)
    session.step(steps)
    return np.stack([session.read("codes", slot)[:steps] for slot in range(len(DRAWN_SONGS))])


def closest_draw(engine: Engine, level: int, steps: int = 48) -> float:
    """How near the drawn codes of `check_chosen_codes` are to others: in probability, the nearest of all draws."""
    session = engine.prior_session(level, len(DRAWN_SONGS))
    _fill(session, engine, level, steps, DRAWN_SONGS)
    distances = []
    for position in range(steps):
        session.step(1)
        for slot in range(len(DRAWN_SONGS)):
            logits = session.read("logits", slot).astype(np.float64)
            cumulative = np.cumsum(np.exp(logits - logits.max()))
            drawn = session.read("uniform", slot)[position]
            distances.append(float(np.abs(cumulative / cumulative[-1] - drawn).min()))
    return min(distances)


def stretch_of(model: Engine, level: int, slots: int = 2) -> WindowStretch:
    """Slots at different positions in the middle of a window."""
    return make_stretch(model, model.config.prior(level), StretchPlace(1, 3), slots, SEED)


def check_every_number_of_slots(model: Engine, engine: Engine, level: int) -> None:
    """One session after the other, so that an engine with a profile for each of these numbers changes between them."""
    for slots in (1, 4, 1, 3, 16):
        check_given_codes(model, engine, level, slots)


def check_whole_window(engine: Engine, level: int, slots: int, used_bytes: Callable[[], int]) -> None:
    """Steps from the first position of a window to the last; memory does not grow once the first steps are done."""
    session = engine.prior_session(level, slots)
    prior = engine.config.prior(level)
    context = prior.transformer.context
    _fill(session, engine, level, context, songs=range(slots))
    session.step(4)
    _wait(session)
    before = used_bytes()
    session.step(context - 4)
    assert [int(session.read("position", slot)) for slot in range(slots)] == [context] * slots
    assert not any(session.read("not_finite", slot) for slot in range(slots))
    assert used_bytes() <= before + SLACK
    session.step(3)  # what is finished is left alone
    assert int(session.read("position", 0)) == context


def check_sessions_come_and_go(engine: Engine, level: int, used_bytes: Callable[[], int]) -> None:
    """Opening and letting go again and again takes no memory for good."""

    def once() -> int:
        session = engine.prior_session(level, 1)
        session.step(2)
        _wait(session)
        del session
        return used_bytes()

    once()
    before = once()
    for _ in range(3):
        after = once()
    assert after <= before + SLACK


def check_slots_are_independent(engine: Engine, level: int, slots: int = 4, steps: int = 24) -> None:
    """A song comes out the same in every slot, whatever is in the others."""
    found = []
    for place in range(slots):
        session = engine.prior_session(level, slots)
        songs = [0 if slot == place else 1 + slot + place for slot in range(slots)]
        _fill(session, engine, level, steps, songs)
        session.step(steps)
        found.append(session.read("codes", place)[:steps])
    assert len(set(found[0].tolist())) > 1, "all codes are the same: nothing is computed"
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def check_same_bits(engine: Engine, spec: GraphSpec) -> None:
    """A graph that conditions windows gives the same bits in every run and every session.

    What it gives is not stored with a song, so a resumed song depends on this.
    """
    feeds = random_feeds(spec, engine.config, {"B": 1}, SEED)
    found = []
    for _ in range(2):
        runner = engine.runner(spec.kind, spec.level)
        found += [runner(feeds), runner(feeds)]
    for name, expected in found[0].items():
        assert all(other[name].tobytes() == expected.tobytes() for other in found[1:]), f"{spec.name}: {name} differs"


def graphs_that_condition(engine: Engine) -> list[GraphSpec]:
    """The graphs of all priors that run once per window."""
    return [spec for spec in engine.graphs.values() if spec.model_level is not None and not spec.states]


def check_songs_go_on(engine: Engine, level: int, folder: Path) -> None:
    """A song that was stopped when the others of its batch were done has the codes of one that nobody stopped.

    It is stopped in its last window of this level, the lowest that is sampled, as soon as codes of that window are
    stored, and towards the window's end in any case.
    """
    prior = engine.config.prior(level)
    hops = (1, 3) if level == engine.config.top_level else (0, 1)  # the windows of upsamplers are long
    short, long = (prior.window + more * prior.hop for more in hops)
    second = engine.config.vqvae.sample_rate / engine.config.vqvae.hop_length(prior.level)
    requests = [SongRequest(seconds=codes / second, seed=song) for song, codes in enumerate((long, short, short))]
    whole, stopped = ([SongJob(r, folder / name / str(r.seed)) for r in requests] for name in ("whole", "stopped"))
    for _ in _sampled(engine, whole, level):
        pass
    with closing(_sampled(engine, stopped, level)) as events:
        for event in events:
            if len(_codes(stopped[0], prior)) > long - prior.hop or _done(event, level) > long - prior.hop // 4:
                break
    assert short <= len(_codes(stopped[0], prior)) < long, "stopped elsewhere: nothing is shown"
    for _ in _sampled(engine, stopped, level):
        pass
    for one, other in zip(whole, stopped, strict=True):
        np.testing.assert_array_equal(_codes(other, prior), _codes(one, prior))


def _done(event: Event, level: int) -> int:
    """The codes of the first song at a level, if the event tells of them."""
    match event:
        case LevelProgress(level=of, song=0, done=done) if of == level:
            return done
    return 0


def _sampled(engine: Engine, jobs: list[SongJob], lowest_level: int) -> Generator[Event]:
    """Sample in calls of about a millisecond, which is how long an event may come too late."""
    options = SamplingOptions(slots=len(jobs), lowest_level=lowest_level, resume=True, commit_seconds=0.001)
    yield from SongSampler(engine, Fingerprint("one that is tested", "random weights"), options=options).sample(jobs)


def _codes(job: SongJob, prior: PriorConfig) -> np.ndarray:
    return read_codes(job.folder, prior.level, prior.codebook_size)


def _fill(session: PriorSession, engine: Engine, level: int, end: int, songs: range | list[int]) -> None:
    """Nothing known, all of a window to draw; what a slot draws depends on the number of its song."""
    prior = engine.config.prior(level)
    spec = find_graph(engine.graphs, GraphKind.STEP, level)
    for slot, song in enumerate(songs):
        rng = np.random.default_rng(song)
        for tensor in spec.tensors:
            shape = tensor.shape({"B": 1})[1:]
            if tensor.name in _NUMBERS:
                session.write(tensor.name, slot, np.asarray(_NUMBERS[tensor.name], tensor.dtype))
            elif tensor.name == "window_end":
                session.write(tensor.name, slot, np.asarray(end, tensor.dtype))
            elif tensor.name == "codes":
                session.write(tensor.name, slot, np.zeros(shape, tensor.dtype))
            elif tensor.name == "uniform":
                session.write(tensor.name, slot, rng.random(shape, np.float32))
            elif tensor.dtype == "float32" and not tensor.in_place and tensor.name != "logits":
                session.write(tensor.name, slot, rng.standard_normal(shape, np.float32) / prior.transformer.width)


_NUMBERS = {"position": 0, "known_end": 0, "temperature": 1, "top_k": 0, "top_p": 0, "not_finite": 0}


def _wait(session: PriorSession) -> None:
    """All steps are done when something is here."""
    session.read("position", 0)
