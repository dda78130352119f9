"""Opening of ONNX Runtime sessions: execution provider, threads, and handling of weights."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.contract import GraphKind, GraphSpec, Precision
from jukebox_deploy.engines.device import NoDeviceError, Provider
from jukebox_deploy.engines.onnx_files import read_graph
from jukebox_deploy.engines.onnxruntime.bf16 import compute_in_float32
from jukebox_deploy.engines.onnxruntime.integer_blocks import block_size, gpu_block_size
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.mapped_products import divide_products
from jukebox_deploy.engines.onnxruntime.memory import failure
from jukebox_deploy.engines.onnxruntime.ready import (
    ACCURACY_OF_FLOATS,
    ACCURACY_OF_INTEGERS,
    maker_of,
    require_maker,
    set_accuracy,
)
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import EngineError
from jukebox_deploy.listing import words_of

if TYPE_CHECKING:
    from onnx import ModelProto

BLOCK_SIZE, ACCURACY = "session.qdq_matmulnbits_block_size", "session.qdq_matmulnbits_accuracy_level"
"""Keys of session options: the block size of integer weights, and how activations are rounded in their products."""

LARGE_WEIGHTS = 512 << 20
"""Bytes above which weights stay memory-mapped rather than packed, where that is possible and wanted."""

PARALLEL_PACKING_LIMIT = 1 << 30
"""Bytes of weights up to which all cores pack them: up to twice as fast, but holds all of them in memory twice."""

GPU_PROVIDERS: Mapping[str, str] = {
    Provider.CUDA: "CUDAExecutionProvider",
    Provider.TENSORRT: "TensorrtExecutionProvider",
    Provider.TENSORRT_RTX: "NvTensorRTRTXExecutionProvider",
}
"""ONNX Runtime's names of the providers for GPUs. The CUDA provider runs what those of TensorRT do not support."""


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """Options of the sessions of an engine."""

    provider: str = Provider.CPU  # a value of `Provider`
    threads: int | None = None  # most threads per graph; None: as many as are worthwhile
    map_weights: bool = False  # keep large weights of the step memory-mapped too, as those of other graphs always are
    round_activations: bool = True  # to 8 bits in products with integer weights, on a CPU: many times as fast
    cuda_graph: bool | None = None  # record and replay steps, with the provider cuda; None: if that is possible

    def __post_init__(self) -> None:
        if self.provider not in list(Provider):
            raise EngineError(f"ONNX Runtime: unknown provider {self.provider!r}; choose {words_of(Provider, 'or')}.")
        if self.cuda_graph and self.provider != Provider.CUDA:
            raise EngineError(
                f"ONNX Runtime: steps are recorded as CUDA graphs with the provider cuda, not with {self.provider}."
            )

    @property
    def records(self) -> bool:
        """Whether steps are recorded."""
        return self.provider == Provider.CUDA and self.cuda_graph is not False


def providers(runtime: Any, options: OnnxRuntimeOptions, kind: GraphKind | None = None) -> list[Any]:
    """Return the list of providers for a session on a graph of this kind.

    Raises `EngineError` if this ONNX Runtime lacks the chosen provider.
    """
    if options.provider == Provider.CPU:
        return ["CPUExecutionProvider"]
    # CUDA's libraries round products of fp32 to TF32 unless this is set when they start; of the providers, only that of
    # CUDA has an option against it.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    _load_libraries()
    name = GPU_PROVIDERS[options.provider]
    if name not in runtime.get_available_providers():
        how = (
            "Run: pip uninstall -y onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' cuda-bindings."
            if options.provider == Provider.CUDA
            else "Install a build of ONNX Runtime that has it, or build engines: jukebox-deploy build."
        )
        raise EngineError(f"this ONNX Runtime has no {name}. {how}")
    recorded = options.records and kind is GraphKind.STEP  # only a step's shapes and addresses never change
    cuda = {
        "use_tf32": "0",  # the default rounds fp32 matrices to TF32
        "enable_cuda_graph": str(int(recorded)),
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles the arena
    }
    chain = [(GPU_PROVIDERS[Provider.CUDA], cuda)]
    return chain if options.provider == Provider.CUDA else [(name, {}), *chain]


@functools.cache
def _load_libraries() -> None:
    """Load the libraries of CUDA and cuDNN that were installed as Python packages, once, before the GPU is used."""
    runtime = import_onnxruntime()
    if hasattr(runtime, "preload_dlls"):
        for folder in _library_folders_elsewhere(runtime):
            with contextlib.redirect_stdout(None):  # it prints the libraries that it does not find
                runtime.preload_dlls(directory=str(folder))
        with contextlib.redirect_stdout(sys.stderr):
            runtime.preload_dlls()


def _library_folders_elsewhere(runtime: Any) -> list[Path]:
    """Return the folders of NVIDIA's packages that are not installed beside ONNX Runtime, where it looks itself."""
    packages = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in packages.submodule_search_locations or ()] if packages else []
    beside = Path(runtime.__file__).parents[1] / "nvidia"
    return [folder for place in places if place != beside for folder in sorted(place.glob("*/lib"))]


def _require_provider(session: Any, options: OnnxRuntimeOptions) -> None:
    """Raise `NoDeviceError` if ONNX Runtime opened a session on the CPU because the provider could not start."""
    found = session.get_providers()
    if options.provider != Provider.CPU and GPU_PROVIDERS[options.provider] not in found:
        raise NoDeviceError(
            f"ONNX Runtime has {GPU_PROVIDERS[options.provider]}, but it does not start on this machine (the session "
            f"has {words_of(found)}). Install its libraries, cuDNN among them, and look at `nvidia-smi`."
        )


def require_start(options: OnnxRuntimeOptions) -> None:
    """Raise `EngineError` if this ONNX Runtime lacks the provider, `NoDeviceError` if it does not start here.

    Only opening a session shows whether a provider starts, so this opens one on a graph with a single node.
    """
    runtime = import_onnxruntime()
    chosen = providers(runtime, options)
    if options.provider == Provider.CPU:
        return
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "start", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), _session_options(runtime, 1), providers=chosen, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime has many exception types
        said = str(error).strip().partition("\n")[0]
        raise NoDeviceError(f"ONNX Runtime cannot start {GPU_PROVIDERS[options.provider]}: {said}") from error
    _require_provider(session, options)


@dataclass(frozen=True)
class GraphFile:
    """A graph's declaration, and its ONNX model, read without the weights."""

    spec: GraphSpec
    path: Path
    model: ModelProto

    @classmethod
    def read(cls, spec: GraphSpec, path: Path) -> GraphFile:
        """Read the file. Raises `EngineError` if it cannot be read."""
        return cls(spec, path, read_graph(path))

    @property
    def weight_bytes(self) -> int:
        """Bytes of the external weights."""
        tensors = self.model.graph.initializer
        return sum(int(entry.value) for t in tensors for entry in t.external_data if entry.key == "length")

    def can_stay_mapped(self) -> bool:
        """Return whether its weights are large, and of types that kernels can read directly from the file.

        Kernels for quantised weights need their own layout.
        """
        integers = any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in self.model.graph.node)
        return self.weight_bytes > LARGE_WEIGHTS and not integers

    def threads(self, options: OnnxRuntimeOptions) -> tuple[int, int]:
        """Return the number of threads of one call, and the number of calls that may run concurrently.

        A VQ-VAE processes audio in chunks. Several threads speed up a single chunk little, so on a CPU every call has
        one thread, and several chunks are processed concurrently.
        """
        threads = options.threads or worthwhile_threads(self.spec, self.weight_bytes)
        if self.spec.model_level is None and options.provider == Provider.CPU:
            return 1, min(threads, MOST_CONCURRENT_CALLS)
        return threads, 1


MOST_CONCURRENT_CALLS = 4
"""Limit of concurrent calls, because each of them takes working memory: with a released VQ-VAE about half a gigabyte to
decode, and more to encode.
"""


def open_session(graph: GraphFile, options: OnnxRuntimeOptions, slots: int | None = None) -> Any:
    """Open an `InferenceSession` on a graph. Raises `EngineError` with ONNX Runtime's message if that fails.

    `slots`: the number of slots of every run, if it is fixed.
    """
    runtime = import_onnxruntime()
    threads, _ = graph.threads(options)
    step = graph.spec.kind is GraphKind.STEP
    mapped = graph.can_stay_mapped() and (options.map_weights or not step)
    session_options = _session_options(runtime, threads)
    for key, value in _entries_of(graph, options, mapped).items():
        session_options.add_session_config_entry(key, value)
    if (maker := maker_of(graph.model)) is not None:
        require_maker(graph.path.name, maker, runtime, options.provider)
        set_accuracy(graph.model, _accuracy(options))
        session_options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # done ahead of time
    if graph.spec.precision is Precision.BF16 and options.provider == Provider.CPU:
        compute_in_float32(graph.model)
    if mapped and step and slots == 1 and options.provider == Provider.CPU:
        divide_products(graph.model, threads)
    chosen = providers(runtime, options, graph.spec.kind)
    _require_kernels(graph, options)
    try:
        # With its fallback, ONNX Runtime would continue on the CPU after a failure of the GPU, without an error.
        session = runtime.InferenceSession(
            graph.model.SerializeToString(), session_options, providers=chosen, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime has many exception types, all with a readable message
        raise failure(f"ONNX Runtime cannot open {graph.path.name}", error) from error
    _require_provider(session, options)
    return session


def _require_kernels(graph: GraphFile, options: OnnxRuntimeOptions) -> None:
    """Raise `EngineError` for weights that ONNX Runtime has no GPU kernel for, because its own message is obscure."""
    from onnx import TensorProto

    scales = {node.input[1] for node in graph.model.graph.node if node.op_type == "DequantizeLinear"}
    scale_types = {t.data_type for t in graph.model.graph.initializer if t.name in scales}
    if options.provider != Provider.CPU and TensorProto.BFLOAT16 in scale_types:
        raise EngineError(
            f"{graph.path.name} has quantised weights in bf16 arithmetic, for which ONNX Runtime has no kernel. Export "
            "with `--precision fp16`, or build engines for TensorRT: jukebox-deploy build."
        )


def options_of_recording(number: int) -> Any:
    """Return run options that capture or replay the recording of this number; with -1, a run does neither."""
    run_options = import_onnxruntime().RunOptions()
    run_options.add_run_config_entry("gpu_graph_id", str(number))
    return run_options


def _session_options(runtime: Any, threads: int) -> Any:
    session_options = runtime.SessionOptions()
    session_options.log_severity_level = 3
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    # Sessions of one process run alternately, so threads of an idle session must not spin beside those of the other.
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    return session_options


def _entries_of(graph: GraphFile, options: OnnxRuntimeOptions, mapped: bool) -> dict[str, str]:
    """Return the entries of the session options that concern a graph's weights."""
    on_gpu = options.provider != Provider.CPU
    # No kernel multiplies with these weights. Without this, they are dequantised at every step rather than once.
    dequantise = _has_fp8(graph.model) if on_gpu else graph.spec.precision is Precision.BF16
    return {
        **({"session.disable_quant_qdq": "1"} if dequantise else {}),
        # The model is passed in memory, because it may have been changed, so the folder of its weights must be given.
        "session.model_external_initializers_file_folder_path": str(graph.path.parent),
        "session.disable_prepacking": str(int(mapped)),
        "session.prepack.enable_parallel": str(int(graph.weight_bytes <= PARALLEL_PACKING_LIMIT)),
        BLOCK_SIZE: str((gpu_block_size if on_gpu else block_size)(graph.model)),
        ACCURACY: str(_accuracy(options)),
    }


def _has_fp8(model: ModelProto) -> bool:
    from onnx import TensorProto

    return any(tensor.data_type == TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer)


def _accuracy(options: OnnxRuntimeOptions) -> int:
    """Return the accuracy level of the kernels for integer weights."""
    return ACCURACY_OF_INTEGERS if options.round_activations else ACCURACY_OF_FLOATS
