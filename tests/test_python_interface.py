"""What programs may import from the package, and the page that shows how to use it."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

import jukebox_deploy
from jukebox_deploy.engines.bundle import EngineBundle
from tests.export.small_models import separate_lyrics_config
from tests.jobs.small_evaluation import write_checkpoint
from tests.source_tree import REPOSITORY

PAGE = REPOSITORY / "docs" / "python.md"
_EXAMPLES = re.compile(r"```python\n(.*?)```", re.DOTALL)


def names_for_type_checkers() -> dict[str, str]:
    """What the block under `TYPE_CHECKING` imports: the module of each name."""
    tree = ast.parse(Path(jukebox_deploy.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def test_type_checkers_see_what_programs_get():
    named = {name: getattr(jukebox_deploy, name) for name in jukebox_deploy.__all__ if name != "__version__"}
    declared = names_for_type_checkers()
    assert set(named) == set(declared)
    # A union of types, as `Event` is, has no module of its own.
    homes = {name: value.__module__ for name, value in named.items() if name != "Event"}
    assert homes == {name: module for name, module in declared.items() if name != "Event"}


INNER = {"Fingerprint", "JukeboxConfig", "Manifest", "SamplingAdvice", "TensorParity"}
"""Classes that only the library makes: programs read them where they find them."""


def types_below(hint: object) -> Iterator[type]:
    """The classes of the package in an annotation."""
    if isinstance(hint, type) and hint.__module__.startswith("jukebox_deploy."):
        yield hint
    for part in typing.get_args(hint):
        for one in part if isinstance(part, list) else [part]:  # the parameters of a `Callable`
            yield from types_below(one)


def test_fields_parameters_and_results_have_public_types():
    public = {name: getattr(jukebox_deploy, name) for name in jukebox_deploy.__all__ if name != "__version__"}
    hints = [
        hint
        for value in public.values()
        if dataclasses.is_dataclass(value) or isinstance(value, FunctionType)
        for hint in typing.get_type_hints(value).values()
    ]
    assert {found.__name__ for hint in hints for found in types_below(hint)} - set(public) == INNER


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'open_modle'"):
        jukebox_deploy.open_modle  # noqa: B018 - that it raises is the point


def test_the_import_loads_nothing_heavy():
    program = "import sys, jukebox_deploy; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "torch", "onnx", "onnxruntime"} & set(loaded)


def test_sampling_needs_no_pytorch():
    program = "import sys, jukebox_deploy; jukebox_deploy.open_model; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


WITHOUT_TORCH = """
import sys; from pathlib import Path; import jukebox_deploy as jukebox
sys.modules["torch"] = None
for name in jukebox.__all__:
    try: getattr(jukebox, name)
    except jukebox.MissingPackageError as error: assert error.name == "torch", error.name; print(name)
try: jukebox.open_model(Path(sys.argv[1]), jukebox.EngineChoice(jukebox.Backend.EAGER, checkpoint=Path("bundle")))
except jukebox.JukeboxError as error: print(error)
"""


def test_without_pytorch_the_rest_can_be_used(tiny_engine_bundle: EngineBundle):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tiny_engine_bundle.folder)]
    *names, sentence = subprocess.check_output(command, text=True).splitlines()
    of_pytorch = {"CheckpointBundle", "ExportRequest", "export_bundle", "import_openai", "verify_bundle"}
    of_sampling = {"BuildOptions", "SamplingOptions", "TensorRtOptions", "build_bundle", "open_model"}
    assert of_pytorch <= set(names)
    assert not of_sampling & set(names)
    assert "needs the package torch" in sentence


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.chdir(tmp_path)
    write_checkpoint(separate_lyrics_config(), Path("bundle"))
    found: dict[str, object] = {}
    for example in _EXAMPLES.findall(PAGE.read_text().replace("seconds=20", "seconds=0.1")):
        exec(compile(example, str(PAGE), "exec"), found)
    codes, codes_again = found["codes"], found["codes_again"]
    assert isinstance(codes, np.ndarray)
    assert isinstance(codes_again, np.ndarray)
    assert codes_again.shape == codes.shape
    printed = capsys.readouterr().out
    for text in ("level 0, song 1:", "songs/1/level_0.wav", "no engine bundle", "vqvae_decode_0"):
        assert text in printed
