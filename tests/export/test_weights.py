from pathlib import Path

import numpy as np
import pytest
import torch

from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.weights import ALIGNMENT, WeightFile, plain_tensors, weights_of_graphs, write_weights


def write(path: Path, dtypes: dict, loaders: dict) -> WeightFile:
    return write_weights(path, plain_tensors(dtypes, loaders))


def test_tensors_are_converted_and_aligned(tmp_path: Path):
    tensors = {"a": torch.arange(5.0), "b": torch.randn(3, 7), "unused": torch.zeros(2)}
    loaders = {name: (lambda tensor=tensor: tensor) for name, tensor in tensors.items()}
    written = write(tmp_path / "model.weights", {"b": torch.float16, "a": torch.float32}, loaders)
    raw = (tmp_path / "model.weights").read_bytes()
    assert set(written.tensors) == {"a", "b"}
    for name, stored in written.tensors.items():
        assert stored.offset % ALIGNMENT == 0
        expected = tensors[name].to(getattr(torch, stored.dtype)).numpy()
        found = np.frombuffer(raw, expected.dtype, offset=stored.offset, count=np.prod(stored.shape))
        np.testing.assert_array_equal(found.reshape(stored.shape), expected)


def test_bfloat16_survives(tmp_path: Path):
    tensor = torch.randn(4)
    written = write(tmp_path / "w", {"a": torch.bfloat16}, {"a": lambda: tensor})
    external = written.external_tensor("a")
    np.testing.assert_array_equal(external.numpy().astype(np.float32), tensor.bfloat16().float().numpy())


def test_a_parameter_without_a_value_leaves_no_file(tmp_path: Path):
    with pytest.raises(ExportError, match=r"the checkpoint lacks b\. Import"):
        write(tmp_path / "w", {"b": torch.float32}, {})
    assert not list(tmp_path.iterdir())


def test_a_failing_tensor_leaves_no_file(tmp_path: Path):
    def fail() -> torch.Tensor:
        raise RuntimeError("unreadable")

    with pytest.raises(RuntimeError, match="unreadable"):
        write(tmp_path / "w", {"a": torch.float32, "b": torch.float32}, {"a": lambda: torch.zeros(9), "b": fail})
    assert not list(tmp_path.iterdir())


def test_unknown_parameters_are_named(tmp_path: Path):
    written = write(tmp_path / "w", {}, {})
    with pytest.raises(ExportError, match=r"'core\.x'"):
        written.external_tensor("core.x")


@pytest.mark.parametrize("content", [b"not a graph\xff" * 20, None])
def test_a_graph_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None):
    graph = tmp_path / "step_0.onnx"
    if content is not None:
        graph.write_bytes(content)
    with pytest.raises(ExportError, match=r"step_0\.onnx .* Copy the folder again"):
        weights_of_graphs([graph])
