"""Check that engines and a checkpoint belong together. Nothing here imports PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.opening.onnx_graphs import require_current_tables

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle


def require_same_model(bundle: EngineBundle, checkpoint: CheckpointBundle) -> None:
    """Raise `EngineError` unless a bundle was made from this checkpoint, by a version with the same tables."""
    found, expected = checkpoint.fingerprint(), bundle.manifest.checkpoint
    if found != expected:
        raise EngineError(
            f"{bundle.folder} was not made from {checkpoint.folder}: that checkpoint has the fingerprint "
            f"{found[:12]}…, expected {expected[:12]}…. Give the checkpoint that was exported, or export again."
        )
    require_current_tables(bundle)
