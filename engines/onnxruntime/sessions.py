"""How ONNX Runtime's sessions are made: provider, threads, and where weights lie."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.onnxruntime.integer_blocks import block_size, gpu_block_size
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

if TYPE_CHECKING:
    from onnx import ModelProto

BLOCK_SIZE, ACCURACY = "session.qdq_matmulnbits_block_size", "session.qdq_matmulnbits_accuracy_level"
"""What ONNX Runtime calls the blocks that it divides columns of integers into, and how activations are rounded."""

LARGE_WEIGHTS = 512 << 20
"""Above this, weights that are not to be packed stay memory-mapped."""

TWICE_IN_MEMORY = 1 << 30
"""Up to this, all cores pack weights, which is up to twice as fast; until all are packed they are in memory twice."""

CPU = "cpu"
"""The provider that runs graphs on a processor."""

GPU_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
"""What runs graphs on a GPU, by what ONNX Runtime calls it. Those of TensorRT leave to CUDA what they do not take."""


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How sessions are made."""

    provider: str = CPU  # or one of `GPU_PROVIDERS`
    threads: int | None = None  # that an engine may use; None: as many as pay
    device: int = 0  # number of the GPU
    map_weights: bool = False  # the step's too, if large: open at once and copy nothing; other graphs always do so
    round_activations: bool = True  # to 8 bits where they meet integer weights, on a CPU: many times as fast
    cuda_graph: bool | None = None  # record a step and replay it, with the provider cuda; None: if it lets itself be

    def __post_init__(self) -> None:
        known = (CPU, *GPU_PROVIDERS)
        if self.provider not in known:
            raise EngineError(f"ONNX Runtime: unknown provider {self.provider!r}; choose {', '.join(known)}.")
        if self.cuda_graph and self.provider != "cuda":
            raise EngineError(
                f"ONNX Runtime: steps are recorded as CUDA graphs with the provider cuda, not with {self.provider}."
            )

    @property
    def records(self) -> bool:
        """Whether steps are recorded."""
        return self.provider == "cuda" and self.cuda_graph is not False


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
    folders = [_folder_of(wheel) for wheel in ("onnxruntime", "onnxruntime-gpu")]
    if None not in folders and folders[0] == folders[1]:
        raise EngineError(
            "both onnxruntime and onnxruntime-gpu are installed, and they overwrite each other's files. "
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them again."
        )
    return onnxruntime


def _folder_of(wheel: str) -> Path | None:
    """Where a wheel is installed, if it is; two in different folders do not overwrite each other."""
    try:
        return Path(str(importlib.metadata.distribution(wheel).locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None


def providers(runtime: Any, options: OnnxRuntimeOptions, kind: GraphKind | None = None) -> list[Any]:
    """What a session on a graph of this kind is told; `EngineError` if this ONNX Runtime lacks it."""
    if options.provider == "cpu":
        return ["CPUExecutionProvider"]
    _load_libraries()
    name = GPU_PROVIDERS[options.provider]
    if name not in runtime.get_available_providers():
        how = (
            "Run: pip uninstall -y onnxruntime, then pip install 'jukebox-deploy[cuda]'."
            if options.provider == "cuda"
            else "It takes a build of ONNX Runtime that has it; or build engines: jukebox-deploy build."
        )
        raise EngineError(f"this ONNX Runtime has no {name}. {how}")
    recorded = options.records and kind is GraphKind.STEP  # whose shapes and addresses never change
    cuda = {
        "device_id": str(options.device),
        "use_tf32": "0",  # by default it rounds matrices of fp32
        "enable_cuda_graph": str(int(recorded)),
        "arena_extend_strategy": "kSameAsRequested",  # and not twice of it
    }
    chain = [(GPU_PROVIDERS["cuda"], cuda)]
    if options.provider == "cuda":
        return chain
    # TensorRT rounds matrices of fp32 too, and its providers have no option for it. CUDA's libraries read this once.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    return [(name, {"device_id": str(options.device)}), *chain]


@functools.cache
def _load_libraries() -> None:
    """Load those of CUDA and cuDNN that were installed as packages, once, before anything is put on a GPU."""
    runtime = import_onnxruntime()
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it tells there of each that it does not find
            runtime.preload_dlls()


def _require_provider(session: Any, options: OnnxRuntimeOptions) -> None:
    """Raise `NoDeviceError` for a session that ONNX Runtime has put on the CPU because a provider could not start."""
    found = session.get_providers()
    if options.provider != "cpu" and GPU_PROVIDERS[options.provider] not in found:
        raise NoDeviceError(
            f"ONNX Runtime has {GPU_PROVIDERS[options.provider]}, but it does not start on this machine (it went on "
            f"with {', '.join(found)}). Look for its libraries, cuDNN among them, and at `nvidia-smi`."
        )


def require_start(options: OnnxRuntimeOptions) -> None:
    """Raise `EngineError` if this ONNX Runtime lacks a provider, `NoDeviceError` if that does not start here.

    Whether it starts shows only when a session is opened on it, so there is one on a graph of one node.
    """
    runtime = import_onnxruntime()
    chosen = providers(runtime, options)
    if options.provider == "cpu":
        return
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "start", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), _session_options(runtime, options, 1), providers=chosen, enable_fallback=0
        )
    except Exception as error:  # the runtime raises many kinds
        said = str(error).strip().partition("\n")[0]
        raise NoDeviceError(f"ONNX Runtime cannot start {GPU_PROVIDERS[options.provider]}: {said}") from error
    _require_provider(session, options)


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
        integers = any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in self.model.graph.node)
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
"""Each takes its own working memory: about half a gigabyte to decode with a released VQ-VAE, more to encode."""


def open_session(graph: GraphFile, options: OnnxRuntimeOptions, slots: int | None = None) -> Any:
    """An `InferenceSession` on a graph; `EngineError` with the runtime's own words if it refuses.

    `slots`: how many it will always run, if that is known.
    """
    runtime = import_onnxruntime()
    threads, _ = graph.threads(options)
    step = graph.spec.kind is GraphKind.STEP
    mapped = graph.can_stay_mapped() and (options.map_weights or not step)
    session_options = _session_options(runtime, options, threads)
    for key, value in _entries_of(graph, options, mapped).items():
        session_options.add_session_config_entry(key, value)
    if (maker := maker_of(graph.model)) is not None:
        require_maker(graph.path.name, maker, runtime, options.provider)
        set_accuracy(graph.model, _accuracy(options))
        session_options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it was done
    if mapped and step and slots == 1 and options.provider == "cpu":
        divide_products(graph.model, threads)
    chosen = providers(runtime, options, graph.spec.kind)
    _require_kernels(graph, options)
    try:
        # Without its fallback: where a GPU fails, ONNX Runtime would tell nobody and go on with the CPU.
        session = runtime.InferenceSession(
            graph.model.SerializeToString(), session_options, providers=chosen, enable_fallback=0
        )
    except Exception as error:  # the runtime raises many kinds, all with a readable text
        raise failure(f"ONNX Runtime cannot open {graph.path.name}", error) from error
    _require_provider(session, options)
    return session


def _require_kernels(graph: GraphFile, options: OnnxRuntimeOptions) -> None:
    """Raise `EngineError` for arithmetic that ONNX Runtime has on no GPU, which it tells in riddles."""
    from onnx import TensorProto

    scales = {node.input[1] for node in graph.model.graph.node if node.op_type == "DequantizeLinear"}
    around = {t.data_type for t in graph.model.graph.initializer if t.name in scales}
    if options.provider != "cpu" and TensorProto.BFLOAT16 in around:
        raise EngineError(
            f"{graph.path.name} has quantised weights in bf16 arithmetic, for which ONNX Runtime has no kernel. Export "
            "with `--precision fp16`, or build engines for TensorRT: jukebox-deploy build."
        )


def options_of_recording(number: int) -> Any:
    """What a run is told so that it makes or replays this recording; with -1 it does neither."""
    run_options = import_onnxruntime().RunOptions()
    run_options.add_run_config_entry("gpu_graph_id", str(number))
    return run_options


def _session_options(runtime: Any, options: OnnxRuntimeOptions, threads: int) -> Any:
    session_options = runtime.SessionOptions()
    session_options.log_severity_level = 3
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    # Sessions take turns in one process: threads of an idle one must not spin against the other's.
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    return session_options


def _entries_of(graph: GraphFile, options: OnnxRuntimeOptions, mapped: bool) -> dict[str, str]:
    """What a graph's session is told about its weights."""
    on_gpu = options.provider != "cpu"
    # CUDA has no products with fp8: it would write out all weights at every step, and so it does that once.
    once = {"session.disable_quant_qdq": "1"} if on_gpu and _has_fp8(graph.model) else {}
    return {
        **once,
        # The model comes from memory, perhaps changed; its weights still lie in the folder.
        "session.model_external_initializers_file_folder_path": str(graph.path.parent),
        "session.disable_prepacking": str(int(mapped)),
        "session.prepack.enable_parallel": str(int(graph.weight_bytes <= TWICE_IN_MEMORY)),
        BLOCK_SIZE: str((gpu_block_size if on_gpu else block_size)(graph.model)),
        ACCURACY: str(_accuracy(options)),
    }


def _has_fp8(model: ModelProto) -> bool:
    from onnx import TensorProto

    return any(tensor.data_type == TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer)


def _accuracy(options: OnnxRuntimeOptions) -> int:
    """Of the kernels for integer weights."""
    return ACCURACY_OF_INTEGERS if options.round_activations else ACCURACY_OF_FLOATS
