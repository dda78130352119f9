"""What records say of how they were made."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from jukebox_deploy.provenance import describe_computer, time_now


def test_the_computer_is_described():
    computer = describe_computer()
    assert computer.processor
    assert computer.cores >= 1
    assert computer.packages["numpy"]
    assert list(asdict(computer)) == ["processor", "cores", "memory_bytes", "system", "python", "packages"]


def test_the_time_is_that_of_utc_to_the_second():
    told = datetime.fromisoformat(time_now())
    assert told.utcoffset() == timedelta(0)
    assert told.microsecond == 0
    assert abs(datetime.now(told.tzinfo) - told) < timedelta(minutes=1)
