"""Imports run one way, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, REPOSITORY, SourceModule, source_modules

FOUNDATION = {
    "attention_patterns",
    "chunks",
    "config",
    "config_json",
    "contract",
    "costs",
    "engine",
    "errors",
    "files",
    "graph_cutting",
    "graphs",
    "listing",
    "markdown",
    "optional_packages",
    "parameter_counts",
    "presets",
    "processes",
    "provenance",
    "quantities",
    "receptive_field",
    "sound_files",
    "threads",
    "tool_versions",
}
"""Modules at the package's root: pure Python and NumPy, free for all."""

_PARTS = {"labels", "data", "models", "checkpoints", "export", "engines", "runtime", "training"}
MAY_IMPORT: dict[str, set[str]] = {
    "labels": set(),
    "data": {"labels"},
    "models": set(),
    "checkpoints": {"models", "labels"},
    "export": {"models", "checkpoints"},
    "engines": set(),
    "runtime": {"labels"},
    "training": {"models", "checkpoints", "labels", "data"},
    "jobs": _PARTS,
    "benchmarks": {*_PARTS, "jobs"},
    "cli": {*_PARTS, "jobs", "benchmarks"},
    "api": {*_PARTS, "jobs"},
}
"""What each package may import besides itself and the foundation."""

BACKENDS = {"onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "polygraphy"}
LAZY = BACKENDS | {"transformers", "matplotlib", "scipy", "soundfile", "soxr", "rich", "unidecode"}
"""Imported inside the functions that use them, everywhere."""

EAGER_ONLY_IN = {
    "torch": {"models", "checkpoints", "export", "training", "jobs"},
    "onnx": {"export", "jobs"},
    "onnx_ir": {"export", "jobs"},
    "onnxscript": {"export", "jobs"},
}
"""Imported by modules of these packages; elsewhere inside the functions that use them."""

NEVER_IN = dict.fromkeys(("runtime", "labels", "foundation"), BACKENDS | {"transformers"} | set(EAGER_ONLY_IN))
"""Not imported at all, not even inside a function."""


@dataclass(frozen=True)
class Import:
    """One imported module, and whether it is imported together with the module that names it."""

    target: str
    eager: bool
    line: int


def imports_of(module: SourceModule) -> Iterator[Import]:
    """All imports of a module."""
    yield from _imports_below(module.tree, module, eager=True)


def _imports_below(node: ast.AST, module: SourceModule, *, eager: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, eager, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, module)
            # `from package import module` names a module too.
            yield from (Import(f"{base}.{alias.name}", eager, child.lineno) for alias in child.names)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(child)
            yield from _imports_below(child, module, eager=eager and not lazy)


def _absolute(node: ast.ImportFrom, module: SourceModule) -> str:
    if not node.level:
        return node.module or ""
    parents = module.name.split(".")
    kept = parents[: len(parents) - node.level + module.is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def layer_of(name: str) -> str:
    """The package of a module of ours, or "foundation"; a name of the root package belongs to the foundation too."""
    parts = name.split(".")
    layer = parts[1] if len(parts) > 1 else ""
    return layer if layer in MAY_IMPORT else "foundation"


def violations(repository: Path) -> list[str]:
    """Every import that the tables above do not allow, as `module:line imports target`."""
    found = []
    for module in source_modules(repository):
        parts = module.name.split(".")
        if len(parts) > 1 and parts[1] not in FOUNDATION | set(MAY_IMPORT):
            found.append(f"{module.name} is in none of the tables")
        found += [
            f"{module.name}:{item.line} imports {item.target}"
            for item in imports_of(module)
            if not _allowed("api" if module.name == PACKAGE else layer_of(module.name), item)
        ]
    return found


def _allowed(layer: str, item: Import) -> bool:
    top = item.target.partition(".")[0]
    if top == PACKAGE:
        return layer_of(item.target) in {layer, "foundation"} | MAY_IMPORT.get(layer, set())
    if top in NEVER_IN.get(layer, set()):
        return False
    if not item.eager:
        return True
    return top not in LAZY and layer in EAGER_ONLY_IN.get(top, {layer})


def test_imports_run_one_way():
    assert violations(REPOSITORY) == []


def test_the_links_are_walked():
    names = {module.name for module in source_modules()}
    assert {f"{PACKAGE}.config", f"{PACKAGE}.export", f"{PACKAGE}.engines", f"{PACKAGE}.benchmarks"} <= names


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("runtime/bad.py", "import torch"),
        ("runtime/bad.py", "def f():\n    import torch"),
        ("runtime/bad.py", "from jukebox_deploy.engines import registry"),
        ("runtime/bad.py", "from jukebox_deploy import engines"),
        ("runtime/bad.py", "from ..engines import registry"),
        ("engines/bad.py", "from jukebox_deploy.models.prior import Prior"),
        ("engines/bad.py", "import jukebox_deploy.export.tracing"),
        ("engines/bad.py", "import torch"),
        ("engines/bad.py", "import onnxruntime as ort"),
        ("engines/bad.py", "from cuda.bindings import runtime"),
        ("engines/bad.py", "try:\n    import tensorrt_rtx\nexcept ImportError:\n    pass"),
        ("engines/bad.py", "def f():\n    from jukebox_deploy.models import prior"),
        ("models/bad.py", "from jukebox_deploy.export import tracing"),
        ("models/bad.py", "class A:\n    import matplotlib"),
        ("export/bad.py", "from jukebox_deploy.engines import registry"),
        ("config.py", "from jukebox_deploy.models import prior"),
        ("config.py", "import torch"),
        ("labels/bad.py", "import unidecode"),
        ("benchmarks/bad.py", "from jukebox_deploy.cli import main"),
        ("somewhere/bad.py", "x = 1"),
    ],
)
def test_a_bad_import_is_found(tmp_path, path, text):
    file = tmp_path / PACKAGE / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cli/good.py", "def f():\n    import torch\n    from jukebox_deploy.engines import registry"),
        ("engines/good.py", "def f():\n    import onnxruntime"),
        ("models/good.py", "import torch\nfrom jukebox_deploy.config import PriorConfig\nfrom . import attention"),
        ("export/good.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnxruntime"),
    ],
)
def test_a_good_import_is_let_pass(tmp_path, path, text):
    file = tmp_path / PACKAGE / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert violations(tmp_path) == []


IMPORT_ALL = """
import importlib, json, sys
names, blocked = json.loads(sys.argv[1])

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
failures = {}
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        failures[name] = repr(error)
print(json.dumps(failures))
"""


def import_failures(names: list[str], blocked: set[str]) -> dict[str, str]:
    """Import modules in a fresh interpreter that lacks the blocked packages; the errors by module."""
    arguments = json.dumps([names, sorted(blocked)])
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, arguments], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    failures: dict[str, str] = json.loads(done.stdout)
    return failures


def test_every_module_imports_without_optional_packages():
    names = [module.name for module in source_modules()]
    assert import_failures(names, BACKENDS | {"transformers"}) == {}


def test_runtime_engines_and_command_line_import_without_torch():
    light = {"foundation", "labels", "data", "runtime", "engines", "benchmarks", "cli"}
    names = [module.name for module in source_modules() if layer_of(module.name) in light]
    assert import_failures(names, LAZY | set(EAGER_ONLY_IN)) == {}


def test_a_missing_package_is_noticed():
    assert "jukebox_deploy.contract" in import_failures(["jukebox_deploy.contract"], {"numpy"})
