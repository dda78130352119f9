"""Slots and continuous batching, against songs that are sampled one window after the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.errors import SamplingError
from jukebox_deploy.runtime.events import LevelProgress
from jukebox_deploy.runtime.level import LevelSampler, SongLevel, _adjacent
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.slot import WindowConditioning
from jukebox_deploy.runtime.song import SongRequest
from jukebox_deploy.runtime.windows import Window
from tests.runtime.fake_engine import FakeEngine, Faults
from tests.runtime.song_cases import MODEL, MODELS, REQUESTS, all_codes, plain_song, sample


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_every_song_is_what_it_is_alone_whatever_the_slots(model: str, slots: int, tmp_path: Path) -> None:
    jobs = [SongJob(request, tmp_path / str(i)) for i, request in enumerate(REQUESTS)]
    sample(FakeEngine(MODELS[model]), jobs, SamplingOptions(slots=slots))
    for job in jobs:
        assert all_codes(job.folder) == plain_song(FakeEngine(MODELS[model]), job.request)


def test_the_order_of_the_songs_does_not_matter(tmp_path: Path) -> None:
    expected = [plain_song(FakeEngine(MODEL), request) for request in REQUESTS[:3]]
    for number, order in enumerate(permutations(range(3))):
        jobs = [SongJob(REQUESTS[i], tmp_path / f"{number}-{i}") for i in order]
        sample(FakeEngine(MODEL), jobs, SamplingOptions(slots=2))
        assert [all_codes(tmp_path / f"{number}-{i}") for i in range(3)] == expected


def test_seed_and_song_number_change_the_codes() -> None:
    songs = [
        plain_song(FakeEngine(MODEL), SongRequest(seconds=0.5, seed=s, song=n)) for s, n in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({str(song) for song in songs}) == 3


def test_a_freed_slot_is_refilled_at_once(tmp_path: Path) -> None:
    jobs = [SongJob(request, tmp_path / str(i)) for i, request in enumerate(REQUESTS)]
    engine = FakeEngine(MODEL)
    sample(engine, jobs, SamplingOptions(slots=2))
    top = engine.sessions[0]
    codes = [round(request.seconds * 50) for request in REQUESTS if request.seconds]
    assert codes == [50, 17, 31, 24, 40]
    # Longest first: one slot is busy for 50 + 24 steps, the other for 40 + 31 + 17.
    assert top.steps == 88


def test_neighbouring_slots_are_prefilled_together(tmp_path: Path) -> None:
    jobs = [SongJob(SongRequest(seconds=0.6, seed=i), tmp_path / str(i)) for i in range(3)]
    engine = FakeEngine(MODEL)
    sample(engine, jobs, SamplingOptions(slots=3))
    # 30 top codes: windows at 0 and 6, of which 8 lyric tokens and 8 + 18 tokens are known.
    assert engine.sessions[0].prefills == [range(3)] * (1 + 4)


@pytest.mark.parametrize(("slot_range", "expected"), [((1, 1, 2), 2), ((4, 4, 8), 4)])
def test_slots_are_as_many_as_the_step_was_made_for(
    slot_range: tuple[int, int, int], expected: int, tmp_path: Path
) -> None:
    jobs = [SongJob(REQUESTS[i], tmp_path / str(i)) for i in range(3)]
    engine = FakeEngine(MODEL, slots=slot_range)
    sample(engine, jobs)
    assert [session.slots for session in engine.sessions] == [expected] * 3
    assert all_codes(jobs[0].folder) == plain_song(FakeEngine(MODEL), REQUESTS[0])


def test_adjacent() -> None:
    assert list(_adjacent([3, 0, 1, 5, 6, 7])) == [range(2), range(3, 4), range(5, 8)]


def test_progress_tells_of_every_song_and_ends_at_the_totals(tmp_path: Path) -> None:
    jobs = [SongJob(request, tmp_path / str(i)) for i, request in enumerate(REQUESTS[:3])]
    events = [e for e in sample(FakeEngine(MODEL), jobs, SamplingOptions(slots=2)) if isinstance(e, LevelProgress)]
    for level, factor in ((2, 1), (1, 2), (0, 4)):
        of_level = [e for e in events if e.level == level]
        assert [(e.song, e.done) for e in of_level[:3]] == [(0, 0), (1, 0), (2, 0)]
        for song, total in enumerate((50, 17, 31)):
            done = [e.done for e in of_level if e.song == song]
            assert done == sorted(done)
            assert done[-1] == total * factor
    assert [e.level for e in events] == sorted((e.level for e in events), reverse=True)


def _level_of_one_window(window: Window, codes: np.ndarray, commits: list[list[int]]) -> SongLevel:
    def condition(_: Window) -> WindowConditioning:
        tensors = {"start": np.zeros(8, np.float32), "conditioning": np.zeros((32, 8), np.float32)}
        return WindowConditioning(np.arange(8), tensors)

    return SongLevel(
        0, SongRequest(seconds=1.0), 24, [window], codes, condition, lambda codes: commits.append(codes.tolist())
    )


def test_lyric_tokens_are_kept_while_the_window_lasts_and_become_code_0_after_it() -> None:
    engine, commits = FakeEngine(MODEL), list[list[int]]()
    sampler = LevelSampler(engine.prior_session(2, 1), MODEL.prior(2), commit_seconds=0)
    list(sampler.run([_level_of_one_window(Window(0, 0, 24), np.zeros(0, np.int64), commits)]))
    assert [len(codes) for codes in commits[:-1]][-1] == 23
    before, after = commits[-2], commits[-1]
    assert min(before) < 0 <= min(after)
    assert [max(code, 0) for code in before] == after[:23]


def test_a_logit_that_is_not_a_number_stops_the_level() -> None:
    engine, commits = FakeEngine(MODEL, Faults(not_finite_from=8 + 5)), list[list[int]]()
    sampler = LevelSampler(engine.prior_session(2, 1), MODEL.prior(2), commit_seconds=0)
    with pytest.raises(
        SamplingError, match=r"level 2, song 0: a logit was NaN or infinite in one of the . steps after code"
    ):
        list(sampler.run([_level_of_one_window(Window(0, 0, 24), np.zeros(0, np.int64), commits)]))
    assert all(len(codes) <= 5 for codes in commits)


@pytest.mark.parametrize(("seconds", "most", "least"), [(0.0, 9, 7), (1.0, 3, 2)])
def test_codes_are_stored_less_often_if_that_takes_long(
    seconds: float, most: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, commits = [0.0], list[list[int]]()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    session = FakeEngine(MODEL).prior_session(2, 1)
    step = session.step

    def slow_step(count: int) -> None:
        clock[0] += 1.0
        step(count)

    def slow_commit(codes: np.ndarray) -> None:
        clock[0] += seconds
        commits.append(codes.tolist())

    monkeypatch.setattr(session, "step", slow_step)
    level = replace(_level_of_one_window(Window(0, 0, 24), np.zeros(0, np.int64), []), commit=slow_commit)
    list(LevelSampler(session, MODEL.prior(2), commit_seconds=2.0).run([level]))
    assert len(commits[-1]) == 24
    assert least <= len(commits) <= most
