"""Sizes that keep the code readable: short modules, short functions, few parameters, public things explained."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.source_tree import SourceModule, source_modules

MODULE_LINES = 320
FUNCTION_LINES = 60
PARAMETERS = 8

ALLOWED: dict[str, str] = {}
"""What may break a rule: the text of the finding up to its colon, and the reason."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def findings(module: SourceModule) -> Iterator[str]:
    """Every broken rule of a module, as `place: what`."""
    lines = len(module.text.splitlines())
    if lines > MODULE_LINES:
        yield f"{module.name}: {lines} lines"
    if module.text.strip() and not ast.get_docstring(module.tree):
        yield f"{module.name}: no docstring"
    yield from _findings_below(module.tree, module.name, public=True)


def _findings_below(node: ast.AST, place: str, *, public: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{place}.{child.name}"
            is_public = public and not child.name.startswith("_")
            if is_public and not ast.get_docstring(child):
                yield f"{name}: no docstring"
            if isinstance(child, Function):
                yield from _function_findings(child, name)
            # What is defined inside a function is nobody else's business.
            yield from _findings_below(child, name, public=is_public and isinstance(child, ast.ClassDef))
        else:
            yield from _findings_below(child, place, public=public)


def _function_findings(function: Function, name: str) -> Iterator[str]:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > FUNCTION_LINES:
        yield f"{name}: {lines} lines"
    arguments = function.args
    named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    count = len([n for n in named if n not in ("self", "cls")])
    if count > PARAMETERS:
        yield f"{name}: {count} parameters"


def test_the_package_keeps_the_rules():
    found = [finding for module in source_modules() for finding in findings(module)]
    assert [finding for finding in found if finding.partition(":")[0] not in ALLOWED] == []


def test_every_exception_is_still_needed_and_has_a_reason():
    places = {finding.partition(":")[0] for module in source_modules() for finding in findings(module)}
    assert set(ALLOWED) <= places
    assert all(ALLOWED.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'''Doc.'''\n" + "x = 1\n" * 320, ["m: 321 lines"]),
        ("'''Doc.'''\n" + "x = 1\n" * 319, []),
        ("x = 1", ["m: no docstring"]),
        ("", []),
        ("'''Doc.'''\ndef _f():\n" + "    x = 1\n" * 60, ["m._f: 61 lines"]),
        ("'''Doc.'''\ndef _f():\n" + "    x = 1\n" * 59, []),
        ("'''Doc.'''\ndef _f(a, b, c, d, e, f, *, g, h, i): ...", ["m._f: 9 parameters"]),
        ("'''Doc.'''\nclass _A:\n    def f(self, a, b, c, d, e, f, g, h): ...", []),
        ("'''Doc.'''\ndef f(): ...", ["m.f: no docstring"]),
        ("'''Doc.'''\nclass A:\n    '''Doc.'''\n    def f(self): ...", ["m.A.f: no docstring"]),
        ("'''Doc.'''\nasync def f():\n    '''Doc.'''\n    def g(): ...", []),
        ("'''Doc.'''\nif x:\n    def f(): ...", ["m.f: no docstring"]),
    ],
)
def test_broken_rules_are_found(text, expected):
    assert list(findings(SourceModule("m", is_package=False, text=text))) == expected
