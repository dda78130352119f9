from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from torch import distributed

from jukebox_deploy.training.interruption import held_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class ReceivedError(Exception):
    """What the handlers of these tests raise."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers that raise, until the test is over."""

    def handle(number: int, frame: object) -> None:
        raise ReceivedError(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_takes_effect_after_the_block(number: signal.Signals) -> None:
    done = False
    with pytest.raises(ReceivedError, match=str(int(number))), held_signals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        assert signals.received == number
        done = True
    assert done
    with pytest.raises(ReceivedError):
        signal.raise_signal(number)


def test_a_second_signal_takes_effect_at_once() -> None:
    done = False
    with pytest.raises(ReceivedError), held_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done = True
    assert not done


def test_a_second_signal_is_no_haste_where_torchrun_passes_each_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_torchelastic_launched", lambda: True)
    done = False
    with pytest.raises(ReceivedError), held_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def test_an_error_in_the_block_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="of the block"), held_signals():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the block")


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received is None


def test_other_threads_hold_nothing_back() -> None:
    handler, seen = signal.getsignal(signal.SIGINT), []

    def hold() -> None:
        with held_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert seen == [handler]
