"""Variants take turns; what is timed is what is asked for, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from jukebox_deploy.benchmarks import rounds as rounds_module
from jukebox_deploy.benchmarks.results import CALLS_FOR_PERCENTILES
from jukebox_deploy.benchmarks.rounds import MIN_CALLS, time_in_turns
from tests.benchmarks.still_clock import StillClock


@dataclass
class FakeTask:
    """Each call takes a second of the list, or the last one; rewinding takes a thousand."""

    name: str
    calls: int
    seconds: list[float]
    clock: StillClock
    diary: list[str]
    made: int = field(default=0, init=False)

    def rewind(self) -> None:
        self.clock.now += 1000
        self.made = 0

    def run(self, calls: int) -> None:
        self.diary.append(f"{self.name}{calls}")
        self.made += calls
        assert self.made <= self.calls, "a task was not rewound"
        for _ in range(calls):
            self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


def run(*specs: tuple[int, list[float]], rounds: int = 5):
    clock, diary = StillClock(), list[str]()
    tasks = [FakeTask(name, *spec, clock, diary) for name, spec in zip("abc", specs, strict=False)]
    return time_in_turns(tasks, rounds, clock=clock), diary


def test_first_call_warm_up_and_rounds_are_told_apart() -> None:
    """One first call, a warm-up of two, then the rounds, each after a call that is not timed."""
    (timing,), _ = run((2, [50.0, 20.0, 20.0, *[30.0, 1.0, 2.0] * 5, 7.0]))
    assert timing.first == 50
    assert timing.rounds == (3, 3, 3, 3, 3)
    assert set(timing.calls) == {7}
    assert len(timing.calls) >= MIN_CALLS


def test_a_round_has_as_many_passes_as_take_long_enough(monkeypatch) -> None:
    """By the warm-up, whose first passes are slower than those that are timed."""
    monkeypatch.setattr(rounds_module, "ROUND_SECONDS", 0.2)
    quick, slow = run((2, [0.25, 0.05, 0.05, 0.001]), (2, [0.25]))[0]
    assert (quick.passes, quick.calls_per_pass) == (100, 2)
    assert quick.rounds == pytest.approx((0.2,) * 5)
    assert (slow.passes, slow.rounds) == (1, (0.5,) * 5)


def test_passes_of_one_call_are_single_calls(monkeypatch) -> None:
    monkeypatch.setattr(rounds_module, "ROUND_SECONDS", 0.2)
    (timing,), _ = run((1, [0.01]))
    assert timing.passes == 20
    assert len(timing.calls) == 5 * 20


def test_short_calls_are_so_many_that_one_in_a_hundred_can_be_told(monkeypatch) -> None:
    monkeypatch.setattr(rounds_module, "_CALL_SECONDS", 2.0)
    short, long = run((100, [0.001]), (100, [0.1]))[0]
    assert len(short.calls) == CALLS_FOR_PERCENTILES
    assert MIN_CALLS <= len(long.calls) < CALLS_FOR_PERCENTILES


def test_something_can_be_done_between_rounds() -> None:
    clock, diary = StillClock(), list[str]()
    task = FakeTask("a", 2, [1.0], clock, diary)
    time_in_turns([task], 5, clock=clock, between=lambda: diary.append("!"))
    assert "".join(diary).startswith("a1a2" + "a1a2!" * 5 + "a1")


def test_everybody_is_first_in_turn() -> None:
    """The order rotates from round to round."""
    _, diary = run((2, [1.0]), (2, [1.0]), (2, [1.0]), rounds=5)
    rounds = diary[6 : 6 + 30]  # after three first calls and three warm-ups
    assert ["".join(rounds[i : i + 6]) for i in range(0, 30, 6)] == [
        "a1a2b1b2c1c2",
        "b1b2c1c2a1a2",
        "c1c2a1a2b1b2",
        "a1a2b1b2c1c2",
        "b1b2c1c2a1a2",
    ]


def test_a_round_of_one_call_is_a_single_call() -> None:
    """Nothing is done again for its latency."""
    (timing,), diary = run((1, [9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    assert timing.calls == timing.rounds == (1, 2, 3, 4, 5)
    assert len(diary) == 1 + 1 + 5


def test_who_waits_is_told() -> None:
    """Which round of how many."""
    said: list[str] = []
    clock = StillClock()
    time_in_turns([FakeTask("a", 1, [1.0], clock, [])], 5, said.append, clock)
    assert "round 3 of 5" in said


@pytest.mark.parametrize("calls", [1, 3, 64, 100])
def test_rewinding_is_not_timed(calls: int) -> None:
    """Not in rounds, not between single calls."""
    (timing,), _ = run((calls, [1.0]))
    assert set(timing.rounds) == {calls}
    assert set(timing.calls) == {1}
