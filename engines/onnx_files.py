"""Reading of `.onnx` files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from onnx import ModelProto

_AGAIN = "Copy the folder again, or export it again, and leave it as it is while it is in use."


def read_graph(path: Path) -> ModelProto:
    """Read a graph without its external weights.

    Raises `EngineError` if it cannot be read, for instance because it was deleted while its bundle was open.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise EngineError(f"{path} is missing. {_AGAIN}") from None
    except (OSError, DecodeError) as error:
        raise EngineError(f"{path} cannot be read as an ONNX graph ({error}). {_AGAIN}") from error
