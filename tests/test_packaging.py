"""What the wheel holds, and whether the links of the documents lead somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from jukebox_deploy.optional_packages import OPTIONAL_PACKAGES
from tests.source_tree import PACKAGE, REPOSITORY, source_modules

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing is left in the tree and nothing old gets in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in (PACKAGE, "export", "engines", "benchmarks"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignore)
    (source / "benchmarks" / "results").mkdir(exist_ok=True)
    (source / "benchmarks" / "results" / "some.json").write_text("{}")
    (source / "models" / "small_demo").mkdir(parents=True)
    (source / "models" / "small_demo" / "config.json").write_text("{}")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True, capture_output=True, text=True)
    (file,) = target.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_the_wheel_holds_every_module_and_the_type_marker(wheel):
    expected = {
        f"{module.name.replace('.', '/')}{'/__init__' if module.is_package else ''}.py" for module in source_modules()
    }
    assert {n for n in wheel.namelist() if ".dist-info/" not in n} == expected | {f"{PACKAGE}/py.typed"}


def test_the_wheel_puts_one_name_into_site_packages(wheel):
    assert {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {PACKAGE}


def test_the_wheel_carries_licence_and_version(wheel):
    fields = metadata(wheel)
    assert fields["Version"] == importlib.import_module(PACKAGE).__version__
    assert fields["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_no_extra_asks_for_both_onnxruntime_packages():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirements in extras.values():
        names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements}
        assert not {"onnxruntime", "onnxruntime-gpu"} <= names


def requirements() -> dict[str, set[str]]:
    """Names of the packages that an installation asks for, by extra; those of a bare one under the empty name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: set(_names_in(asked, lists)) for extra, asked in lists.items()}


def _names_in(asked: list[str], lists: dict[str, list[str]]) -> Iterator[str]:
    for one in asked:
        if one.startswith("jukebox-deploy["):  # other extras
            for extra in one.removeprefix("jukebox-deploy[").removesuffix("]").split(","):
                yield from _names_in(lists[extra], lists)
        else:
            yield re.split(r"[^A-Za-z0-9._-]", one)[0].replace("_", "-")


def imported_packages() -> dict[str, str]:
    """Packages that modules import by name, and one such module of each."""
    found = {}
    for module in source_modules():
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found.update(dict.fromkeys((name.partition(".")[0] for name in names), module.name))
    return {name: module for name, module in found.items() if name not in {PACKAGE, *sys.stdlib_module_names}}


def published_as(name: str) -> str:
    """What pip calls the package of an imported name."""
    other = {"PIL": "pillow", "google": "protobuf", "cuda": "cuda-bindings"}
    return other.get(name, name).replace("_", "-")


def test_every_imported_package_is_asked_for():
    bare = requirements()[""]
    optional = {*OPTIONAL_PACKAGES, "cuda", "unidecode"}  # the last two have sentences of their own
    missing = {name: module for name, module in imported_packages().items() if published_as(name) not in bare}
    assert {name: module for name, module in missing.items() if name not in optional} == {}


def test_a_machine_that_only_makes_a_corpus_gets_scipy_and_no_pytorch():
    asked = requirements()
    assert asked["synthesis"] - asked[""] == {"scipy"} <= asked["train"]


def test_the_extras_hold_the_optional_packages():
    asked = requirements()
    assert {name for name, extra in OPTIONAL_PACKAGES.items() if published_as(name) not in asked[extra]} == set()
    assert {name for name in OPTIONAL_PACKAGES if published_as(name) in asked[""]} == set()


@pytest.mark.parametrize("extra", ["cpu", "cuda", "tensorrt", "tensorrt-rtx"])
def test_a_machine_that_only_samples_gets_no_pytorch(extra):
    asked = requirements()
    exporting = {published_as(name) for name, extra in OPTIONAL_PACKAGES.items() if extra == "export"}
    assert "torch" in exporting
    assert not exporting & (asked[""] | asked[extra])
    assert exporting <= asked["train"]


def test_the_entry_point_is_there(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "jukebox-deploy = jukebox_deploy.cli.main:main" in wheel.read(name).decode()
    assert callable(importlib.import_module(f"{PACKAGE}.cli.main").main)


@pytest.mark.parametrize(
    "document",
    [path for pattern in ("*.md", "docs/**/*.md", "models/**/*.md") for path in sorted(REPOSITORY.glob(pattern))],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_links_lead_to_files(document):
    assert broken_links(document) == []


def test_a_broken_link_is_found(tmp_path):
    document = tmp_path / "a.md"
    document.write_text('[here](a.md) [there](https://example.org/x) [part](#part) [gone](b.md#part) <img src="c.png">')
    assert broken_links(document) == ["b.md#part", "c.png"]


def broken_links(document: Path) -> list[str]:
    targets = ["".join(found) for found in LINK.findall(document.read_text())]
    local = [t for t in targets if not t.startswith(("https://", "http://", "#", "mailto:"))]
    return [t for t in local if not (document.parent / t.partition("#")[0]).exists()]
