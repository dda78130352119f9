"""The errors that docs/tensorrt.md explains are those of the code; the others say themselves what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import jukebox_deploy

ROOT = Path(__file__).parents[2]
PACKAGE = Path(jukebox_deploy.__file__).parent
SOURCES = sorted([*PACKAGE.glob("engines/**/*.py"), *PACKAGE.glob("runtime/*.py")])
RAISING = {"require", "_require", "failure", "_failure", "_require_validity"}
"""Functions that raise what they are told, with the library's own words."""
_ADVICE = re.compile(
    r"\b(ask for|build|choose|copy|drop|export|give|install|leave|look at|make|name|open|update|write)\b", re.IGNORECASE
)


def template(node: ast.AST) -> str:
    """A text as it stands in the code, with `…` for what is put in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return "…"


@cache
def texts() -> frozenset[str]:
    """All texts of the sources."""
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())))
    return frozenset(template(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp))


def troubles() -> list[str]:
    """What stands between backticks in the first column of the tables."""
    section = (ROOT / "docs" / "tensorrt.md").read_text().partition("## Trouble-shooting")[2]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]


def raised(source: str) -> Iterator[str]:
    """The messages of the errors that a file raises."""
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        if not (isinstance(node, ast.Raise) and name.endswith("Error")) and name not in RAISING:
            continue
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        messages = [template(argument) for argument in arguments if isinstance(argument, ast.JoinedStr | ast.BinOp)]
        yield from (message for message in messages if message.strip("… :()"))


def is_explained(message: str, quotes: list[str]) -> bool:
    """Whether it says what to do, or the documentation does."""
    return _ADVICE.search(message) is not None or any(quote in message for quote in quotes)


def test_the_tables_are_read() -> None:
    assert len(troubles()) > 45
    assert "but no GPU to use" in troubles()


@pytest.mark.parametrize("quote", troubles())
def test_what_the_documentation_quotes_is_in_the_code(quote: str) -> None:
    assert any(quote in text for text in texts())


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("engines/tensorrt/*.py")), ids=lambda path: path.name)
def test_every_error_explains_itself_or_is_explained(path: Path) -> None:
    quotes = troubles()
    assert [message for message in raised(path.read_text()) if not is_explained(message, quotes)] == []


def test_the_check_can_fail() -> None:
    source = "def f(a):\n    raise EngineError(f'{a}: the moon is full')\n    self.require(a, f'{a} cannot sing')"
    assert [is_explained(message, ["cannot sing"]) for message in raised(source)] == [False, True]
    assert is_explained("…: the moon is full. Build it again.", [])
