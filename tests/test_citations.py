"""What code and tests cite of docs/specification.md is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.source_tree import REPOSITORY, source_modules

_NUMBER = r"\d+(?:\.\d+)?"
_CITATION = re.compile(
    rf"specification,? (?:sections? )?({_NUMBER}(?:(?:,| and| to) {_NUMBER})*)(?:, point (\d+))?", re.IGNORECASE
)
_HEADING = re.compile(rf"#+ ({_NUMBER})\.? ")
_POINT = re.compile(r"(?:\| )?(\d+)(?:\.| \|) ")  # of a numbered list, or the first column of a table


def sections(specification: str) -> set[str]:
    """The numbers of its sections, and those of the points in them: point 4 of 16.4 is `16.4.4`."""
    numbers, section = set(), ""
    for line in specification.splitlines():
        if heading := _HEADING.match(line):
            section = heading[1]
            numbers.add(section)
        elif section and (point := _POINT.match(line)):
            numbers.add(f"{section}.{point[1]}")
    return numbers


def citations(text: str) -> Iterator[str]:
    """The numbers of sections that a text cites, also where a line or a comment is broken in between."""
    for numbers, point in _CITATION.findall(re.sub(r"\s*\n\s*(?:# )?", " ", text)):
        yield from re.findall(_NUMBER, numbers)
        if point:
            yield f"{numbers}.{point}"


def test_every_section_that_is_cited_exists():
    known = sections((REPOSITORY / "docs" / "specification.md").read_text())
    texts = {module.name: module.text for module in source_modules()}
    tests = sorted((REPOSITORY / "tests").rglob("*.py"))
    texts |= {str(path.relative_to(REPOSITORY)): path.read_text() for path in tests if path.name != "test_citations.py"}
    found = {name: list(citations(text)) for name, text in texts.items()}
    assert sum(map(len, found.values())) > 100
    assert {name: lost for name, numbers in found.items() if (lost := [n for n in numbers if n not in known])} == {}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("(specification section 6) and 7.1", ["6"]),
        ("Source: specification sections 2 to 13 and 21.", ["2", "13", "21"]),
        ("Source: specification 15.2, 15.3 and 16.2.", ["15.2", "15.3", "16.2"]),
        ("of the specification, section 21", ["21"]),
        ("# Specification\n    # 14.4: 9.96 GB", ["14.4"]),
        ("(specification 16.4, point 3)", ["16.4", "16.4.3"]),
        ("the specification's tables of 3", []),
    ],
)
def test_citations_are_found(text, numbers):
    assert list(citations(text)) == numbers


def test_sections_and_their_points_are_found():
    text = "# A 1\n## 2. VQ-VAE\n### 2.1 Shapes\n| 3 | x |\n## 17. Traps\n5. **Near** the end\n"
    assert sections(text) == {"2", "2.1", "2.1.3", "17", "17.5"}
