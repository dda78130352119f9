from __future__ import annotations

import pytest

from jukebox_deploy.listing import listed


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (12, "0, 1, 2 and 9 more")]
)
def test_a_list_is_cut_after_its_first_items(count: int, expected: str) -> None:
    assert listed((str(number) for number in range(count)), 3) == expected
