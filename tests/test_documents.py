"""What the documents name is there: commands with their options, files, modules, targets of make."""

from __future__ import annotations

import importlib.util
import re

import pytest

from tests.documented_commands import code_spans, problems_of
from tests.source_tree import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
STANDING = [document for document in DOCUMENTS if document.name != "log.md"]
"""All but the log, which tells of its day."""

_PATH = re.compile(r"(?:jukebox_deploy|benchmarks|docs|engines|examples|export|tests|tools)/[\w./-]*")
_STAND_IN = re.compile(r"[A-Z]{2,}")  # for a name of one's own, as in results/DATE.json
_MODULE = re.compile(r"(?:python3? |torchrun [^`\n]*)-m (jukebox_deploy[\w.]*)")
_TARGET = re.compile(r"(?:`|^\s*)make ([a-z][\w-]*)", re.MULTILINE)

documents = pytest.mark.parametrize("document", STANDING, ids=lambda path: path.name)


@documents
def test_commands_exist_with_their_options(document):
    assert problems_of(document.read_text()) == []


@documents
def test_files_and_folders_exist(document):
    named = [span for span in code_spans(document.read_text()) if _PATH.fullmatch(span) and not _STAND_IN.search(span)]
    places = (REPOSITORY, REPOSITORY / "jukebox_deploy")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


@documents
def test_modules_exist(document):
    named = _MODULE.findall(document.read_text())
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


@documents
def test_targets_of_make_exist(document):
    makefile = (REPOSITORY / "Makefile").read_text()
    named = _TARGET.findall(document.read_text())
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("    jukebox-deploy exprot bundle", "there is no command exprot"),
        ("```sh\n$ jukebox-deploy export bundle --fast --out x\n```", "export has no --fast"),
        ("    jukebox-deploy export bundle", "Missing option '--out'"),
        ("    jukebox-deploy export bundle --out x --precision fp8", "'fp8' is not one of"),
        ("    jukebox-deploy data synthesize --hours many \\\n    --out x", "'many' is not a valid float"),
        ("see `jukebox-deploy bench\nreport --gif`", "report has no --gif"),
        ("see `jukebox-deploy train vqvae\\|singer`", "there is no command singer"),
        ("see `export --wieghts int8`", "export has no --wieghts"),
        ("see `--wieghts`", "no command has it"),
    ],
)
def test_what_is_not_there_is_found(text, problem):
    assert any(problem in found for found in problems_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "    jukebox-deploy verify engines --against bundle  # with a remark",
        "`jukebox-deploy COMMAND -h`, `jukebox-deploy import openai FILES … --preset 1b_lyrics`, `--debug`, `data`",
        "`export --weights int8|int4`, `pip install --upgrade x`, `train`, `step_2 --x`",
        "the characters `'` and `\"`",
    ],
)
def test_what_is_there_is_let_pass(text):
    assert problems_of(text) == []
