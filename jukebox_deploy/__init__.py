"""jukebox-deploy: Jukebox checkpoints in, music out through exported engines.

The names in `__all__` are for programs that embed the toolkit (docs/python.md). Each is imported when it is first
used: `import jukebox_deploy` alone loads nothing, and sampling on exported graphs never loads PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the table below, for type checkers and editors
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle as CheckpointBundle
    from jukebox_deploy.checkpoints.huggingface import import_huggingface as import_huggingface
    from jukebox_deploy.checkpoints.openai import import_openai as import_openai
    from jukebox_deploy.config.labels import LabelRules as LabelRules
    from jukebox_deploy.contract import LinearWeights as LinearWeights
    from jukebox_deploy.contract import Precision as Precision
    from jukebox_deploy.engine import Engine as Engine
    from jukebox_deploy.engines.bundle import EngineBundle as EngineBundle
    from jukebox_deploy.engines.bundle import open_bundle as open_bundle
    from jukebox_deploy.engines.manifest import Target as Target
    from jukebox_deploy.engines.tensorrt.build import BuildOptions as BuildOptions
    from jukebox_deploy.engines.tensorrt.build import BuildSummary as BuildSummary
    from jukebox_deploy.engines.tensorrt.build import Feature as Feature
    from jukebox_deploy.engines.tensorrt.bundle import BuildProgress as BuildProgress
    from jukebox_deploy.engines.tensorrt.bundle import build_bundle as build_bundle
    from jukebox_deploy.engines.tensorrt.features import TensorRtOptions as TensorRtOptions
    from jukebox_deploy.errors import JukeboxError as JukeboxError
    from jukebox_deploy.errors import MissingPackageError as MissingPackageError
    from jukebox_deploy.export.cutting import Cutting as Cutting
    from jukebox_deploy.graphs import GraphOptions as GraphOptions
    from jukebox_deploy.jobs.export_job import ExportEvent as ExportEvent
    from jukebox_deploy.jobs.export_job import ExportRequest as ExportRequest
    from jukebox_deploy.jobs.export_job import export_bundle as export_bundle
    from jukebox_deploy.jobs.export_progress import ExportProgress as ExportProgress
    from jukebox_deploy.jobs.quantised_export import Calibration as Calibration
    from jukebox_deploy.jobs.quantised_export import QuantisationRequest as QuantisationRequest
    from jukebox_deploy.jobs.sample_job import Backend as Backend
    from jukebox_deploy.jobs.sample_job import EngineChoice as EngineChoice
    from jukebox_deploy.jobs.sample_job import OpenedModel as OpenedModel
    from jukebox_deploy.jobs.sample_job import open_model as open_model
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck as TensorRtCheck
    from jukebox_deploy.jobs.verification.ladder import VerifyRequest as VerifyRequest
    from jukebox_deploy.jobs.verification.report import Check as Check
    from jukebox_deploy.jobs.verification.report import CheckKind as CheckKind
    from jukebox_deploy.jobs.verification.report import Outcome as Outcome
    from jukebox_deploy.jobs.verification.report import VerifyReport as VerifyReport
    from jukebox_deploy.jobs.verify_job import verify_bundle as verify_bundle
    from jukebox_deploy.labels.vocabulary import NameLists as NameLists
    from jukebox_deploy.labels.vocabulary import Vocabulary as Vocabulary
    from jukebox_deploy.labels.vocabulary_files import read_vocabulary as read_vocabulary
    from jukebox_deploy.runtime.audio import SampleFormat as SampleFormat
    from jukebox_deploy.runtime.audio import WavReport as WavReport
    from jukebox_deploy.runtime.decode import decode_codes as decode_codes
    from jukebox_deploy.runtime.decode import encode_audio as encode_audio
    from jukebox_deploy.runtime.events import DecodeProgress as DecodeProgress
    from jukebox_deploy.runtime.events import Event as Event
    from jukebox_deploy.runtime.events import LevelProgress as LevelProgress
    from jukebox_deploy.runtime.events import SongDecoded as SongDecoded
    from jukebox_deploy.runtime.events import SongWarning as SongWarning
    from jukebox_deploy.runtime.sampler import SamplingOptions as SamplingOptions
    from jukebox_deploy.runtime.sampler import SongJob as SongJob
    from jukebox_deploy.runtime.song import LevelSettings as LevelSettings
    from jukebox_deploy.runtime.song import Mode as Mode
    from jukebox_deploy.runtime.song import SongRequest as SongRequest

_HOMES = {
    "checkpoints.bundle": ("CheckpointBundle",),
    "checkpoints.huggingface": ("import_huggingface",),
    "checkpoints.openai": ("import_openai",),
    "config.labels": ("LabelRules",),
    "contract": ("LinearWeights", "Precision"),
    "engine": ("Engine",),
    "engines.bundle": ("EngineBundle", "open_bundle"),
    "engines.manifest": ("Target",),
    "engines.tensorrt.build": ("BuildOptions", "BuildSummary", "Feature"),
    "engines.tensorrt.bundle": ("BuildProgress", "build_bundle"),
    "engines.tensorrt.features": ("TensorRtOptions",),
    "errors": ("JukeboxError", "MissingPackageError"),
    "export.cutting": ("Cutting",),
    "graphs": ("GraphOptions",),
    "jobs.export_job": ("ExportEvent", "ExportRequest", "export_bundle"),
    "jobs.export_progress": ("ExportProgress",),
    "jobs.quantised_export": ("Calibration", "QuantisationRequest"),
    "jobs.sample_job": ("Backend", "EngineChoice", "OpenedModel", "open_model"),
    "jobs.tensorrt_check": ("TensorRtCheck",),
    "jobs.verification.ladder": ("VerifyRequest",),
    "jobs.verification.report": ("Check", "CheckKind", "Outcome", "VerifyReport"),
    "jobs.verify_job": ("verify_bundle",),
    "labels.vocabulary": ("NameLists", "Vocabulary"),
    "labels.vocabulary_files": ("read_vocabulary",),
    "runtime.audio": ("SampleFormat", "WavReport"),
    "runtime.decode": ("decode_codes", "encode_audio"),
    "runtime.events": ("DecodeProgress", "Event", "LevelProgress", "SongDecoded", "SongWarning"),
    "runtime.sampler": ("SamplingOptions", "SongJob"),
    "runtime.song": ("LevelSettings", "Mode", "SongRequest"),
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    """A public name from the module where it lives; `MissingPackageError` if that needs a package that is missing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jukebox_deploy.optional_packages import packages_explained

    with packages_explained():
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
