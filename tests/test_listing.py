from __future__ import annotations

import pytest

from jukebox_deploy.listing import listed, shape_text, words_of


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (12, "0, 1, 2 and 9 more")]
)
def test_a_list_is_cut_after_its_first_items(count: int, expected: str) -> None:
    assert listed((str(number) for number in range(count)), 3) == expected


@pytest.mark.parametrize(
    ("items", "expected"), [((), ""), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]
)
def test_a_whole_list_reads_as_a_sentence(items: tuple[str, ...], expected: str) -> None:
    assert words_of(iter(items)) == expected
    assert words_of(items, "or") == expected.replace(" and ", " or ")


def test_shapes_are_written_without_quotes() -> None:
    assert [shape_text(sizes) for sizes in ((), ("B", 4), (2, 3, "2*T"))] == ["[]", "[B, 4]", "[2, 3, 2*T]"]
