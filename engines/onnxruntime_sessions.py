"""How ONNX Runtime's sessions are made: provider, threads, and where weights lie."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.engines.mapped_products import divide_products
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from onnx import ModelProto

LARGE_WEIGHTS = 512 << 20
"""Above this, weights that are not to be packed stay memory-mapped."""


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How sessions are made."""

    provider: str = "cpu"  # "cpu" or "cuda"
    threads: int | None = None  # that an engine may use; None: as many as pay
    device: int = 0  # number of the GPU
    map_weights: bool = False  # the step's too, if large: open at once and copy nothing; other graphs always do so
    round_activations: bool = True  # to 8 bits where they meet integer weights, on a CPU: many times as fast

    def __post_init__(self) -> None:
        if self.provider not in ("cpu", "cuda"):
            raise EngineError(f"ONNX Runtime: unknown provider {self.provider!r}; choose cpu or cuda.")


def import_onnxruntime() -> Any:
    """The `onnxruntime` module; `EngineError` says what to install, or what is installed twice."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EngineError(
            "ONNX Runtime is not installed. Install it with: pip install 'jukebox-deploy[cpu]' "
            "(or jukebox-deploy[cuda] for NVIDIA GPUs)."
        ) from None
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is installed, but cannot be loaded: {error}. Install it again.") from error
    wheels = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(wheels) > 1:
        raise EngineError(
            "both onnxruntime and onnxruntime-gpu are installed, and they overwrite each other's files. "
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them again."
        )
    return onnxruntime


def _installed(wheel: str) -> bool:
    try:
        importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def providers(runtime: Any, options: OnnxRuntimeOptions) -> list[Any]:
    """What a session is told; `EngineError` if this ONNX Runtime lacks it."""
    if options.provider == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise EngineError(
            "this ONNX Runtime has no CUDA provider. Run: pip uninstall -y onnxruntime, "
            "then pip install 'jukebox-deploy[cuda]'."
        )
    return [("CUDAExecutionProvider", {"device_id": options.device})]


@dataclass(frozen=True)
class GraphFile:
    """A graph's declaration and its ONNX file, read without the weights."""

    spec: GraphSpec
    path: Path
    model: ModelProto

    @classmethod
    def read(cls, spec: GraphSpec, path: Path) -> GraphFile:
        """Read the file."""
        import onnx

        return cls(spec, path, onnx.load(path, load_external_data=False))

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take in their files."""
        tensors = self.model.graph.initializer
        return sum(int(entry.value) for t in tensors for entry in t.external_data if entry.key == "length")

    def can_stay_mapped(self) -> bool:
        """Whether its weights are large, and numbers that kernels take as they lie in the file.

        The kernels for integers know no other layout than their own.
        """
        integers = any(node.op_type == "DequantizeLinear" for node in self.model.graph.node)
        return self.weight_bytes > LARGE_WEIGHTS and not integers

    def threads(self, options: OnnxRuntimeOptions) -> tuple[int, int]:
        """Threads of one call, and how many calls may run at the same time.

        Sound goes through a VQ-VAE in chunks. A call divides a chunk badly, so each has a thread of its own.
        """
        threads = options.threads or worthwhile_threads(self.spec, self.weight_bytes)
        if self.spec.model_level is None and options.provider == "cpu":
            return 1, min(threads, MOST_CONCURRENT_CALLS)
        return threads, 1


MOST_CONCURRENT_CALLS = 4
"""Each takes its own working memory: about half a gigabyte for ten seconds of a released VQ-VAE."""


def open_session(graph: GraphFile, options: OnnxRuntimeOptions, slots: int | None = None) -> Any:
    """An `InferenceSession` on a graph; `EngineError` with the runtime's own words if it refuses.

    `slots`: how many it will always run, if that is known.
    """
    runtime = import_onnxruntime()
    threads, _ = graph.threads(options)
    session_options = _session_options(runtime, options, threads)
    step = graph.spec.kind is GraphKind.STEP
    mapped = graph.can_stay_mapped() and (options.map_weights or not step)
    if mapped:
        session_options.add_session_config_entry("session.disable_prepacking", "1")
    if mapped and step and slots == 1 and options.provider == "cpu":
        divide_products(graph.model, threads)
    # The model comes from memory, perhaps changed; its weights still lie in the folder.
    session_options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(graph.path.parent)
    )
    try:
        return runtime.InferenceSession(
            graph.model.SerializeToString(), session_options, providers=providers(runtime, options)
        )
    except Exception as error:  # the runtime raises many kinds, all with a readable text
        raise EngineError(f"ONNX Runtime cannot open {graph.path.name}: {error}") from error


def _session_options(runtime: Any, options: OnnxRuntimeOptions, threads: int) -> Any:
    session_options = runtime.SessionOptions()
    session_options.log_severity_level = 3
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    # Sessions take turns in one process: threads of an idle one must not spin against the other's.
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    # The kernels for integer weights: level 4 multiplies them with 8-bit integers, level 1 with float32.
    level = "4" if options.round_activations else "1"
    session_options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    return session_options
