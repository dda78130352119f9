"""Compiled functions: many of them, of many shapes, gone when nobody holds them; and what a compiler's failure says."""

from __future__ import annotations

import gc
import importlib
import os
import stat
import tempfile
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jukebox_deploy.errors import EngineError, TrainingError
from jukebox_deploy.models.compilation import (
    compile_for_inference,
    explained_compilation,
    keep_kernels_private,
    require_compilation,
)

MORE_THAN_PYTORCH_KEEPS = torch._dynamo.config.recompile_limit + 2


class Product(nn.Module):
    """Rows times a matrix, which is also counted up: one input is written in place, as caches are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3), requires_grad=False)

    def forward(self, rows: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        count[0] = count[0] + 1
        return rows @ self.weight, count


def compiled(module: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    """Traced, but kernels are not compiled."""
    return compile_for_inference(module, "product", backend="aot_eager")


def test_as_many_functions_as_are_opened() -> None:
    """PyTorch keeps eight versions of one piece of code, and refuses the ninth: each function has its own."""
    with torch.inference_mode():
        for rows in range(1, MORE_THAN_PYTORCH_KEEPS):
            count = torch.zeros(1)
            product, counted = compiled(Product())(torch.full((rows, 3), 2.0), count)
            assert product.tolist() == [[2.0, 2.0, 2.0]] * rows
            assert count.item() == counted.item() == 1


def test_weights_go_with_their_function() -> None:
    module = Product()
    function = compiled(module)
    with torch.inference_mode():
        function(torch.ones(1, 3), torch.zeros(1))
    weight = weakref.ref(module.weight)
    del module, function
    gc.collect()
    assert weight() is None


def test_pytorchs_advice_to_round_products_is_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    with explained_compilation(EngineError, "do without"):
        warnings.warn("TensorFloat32 tensor cores for float32 matrix multiplication available", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["another"]


def test_what_cannot_be_traced_as_a_whole_is_refused() -> None:
    """Instead of being run in pieces, some of them slow."""

    def looks_at_numbers(x: Tensor) -> tuple[Tensor, ...]:
        return (x * 2,) if x.sum() > 0 else (x,)

    function = compile_for_inference(looks_at_numbers, "looks_at_numbers", backend="aot_eager")
    with pytest.raises(EngineError, match="could not be compiled"), explained_compilation(EngineError, "do without"):
        function(torch.ones(2))


@pytest.mark.parametrize("error", [EngineError, TrainingError])
def test_what_cannot_be_compiled_says_what_is_needed(error: type[EngineError] | type[TrainingError]) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    doubling = torch.compile(lambda x: x * 2, backend=broken)
    reason = r"No working C\+\+ compiler found.*or do without"
    with pytest.raises(error, match=reason), explained_compilation(error, "do without"):
        doubling(torch.zeros(1, 2))


def test_a_compiler_that_is_not_here_is_told_of() -> None:
    missing = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    message = r"no-such-compiler.*such as g\+\+ .* install it, or do without"
    with missing, pytest.raises(EngineError, match=message):
        require_compilation("cpu", EngineError, "do without")


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said where kernels are kept."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "anywhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


def test_kernels_are_kept_where_nobody_else_writes(
    undecided: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled(Product())
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folder == tmp_path / "cache" / "jukebox-deploy" / "torch-compile"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_pytorch_chose_by_itself_is_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = importlib.import_module("torch._inductor.runtime.cache_dir_utils").default_cache_dir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", own)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_kernels_private()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "jukebox-deploy" / "torch-compile")


def test_without_a_home_kernels_are_kept_for_one_process(
    undecided: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    keep_kernels_private()
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_for_kernels_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "chosen")
    keep_kernels_private()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "chosen"


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    with pytest.raises(EngineError, match=r"could not be kept .*kernels.*TORCHINDUCTOR_CACHE_DIR, or do without"):
        require_compilation("cpu", EngineError, "do without")


def test_memory_that_runs_out_while_compiling_is_no_matter_of_compilers() -> None:
    def too_large(graph: object, inputs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    doubling = torch.compile(lambda x: x * 2, backend=too_large)
    with pytest.raises(torch.OutOfMemoryError), explained_compilation(EngineError, "do without"):
        doubling(torch.zeros(1, 2))


def test_errors_of_the_function_itself_are_its_own() -> None:
    with pytest.raises(ZeroDivisionError), explained_compilation(EngineError, "do without"):
        raise ZeroDivisionError
