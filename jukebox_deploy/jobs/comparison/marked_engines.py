"""Results of the modules of a graph on TensorRT: an engine built again, with these results as outputs.

The inside of a finished engine cannot be inspected. TensorRT may fuse layers in another way around marked results, so
an engine that is built for this need not differ where the other one does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from jukebox_deploy.contract import DimensionRange, GraphSpec, Role, TensorSpec, check_feeds, numpy_dtype
from jukebox_deploy.engines.device import DeviceArena
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.engines.tensorrt.build import BuildOptions, build_engine
from jukebox_deploy.engines.tensorrt.capabilities import known_capabilities
from jukebox_deploy.engines.tensorrt.graph import Addresses, EnginePart, TensorRtGraph
from jukebox_deploy.engines.tensorrt.runtime import Platform
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.comparison.difference import Arrays, run_on_cpu, with_outputs

_WORK = "working memory"


@dataclass(frozen=True)
class MarkedEngines:
    """Builds and runs graphs with further outputs on a device, for `find_difference`."""

    platform: Platform
    weight_files: Collection[str]  # in the folder of the graphs

    def run(self, piece: GraphFile, names: Sequence[str], values: Arrays) -> list[np.ndarray]:
        """Return values of a graph, by their names in it. `values`: its inputs by tensor name.

        Raises `EngineError` if the engine cannot be built or run.
        """
        sizes = check_feeds(piece.spec, {t.input_name: values[t.name] for t in piece.spec.inputs})
        marked = marked_graph(piece, dict(zip(names, run_on_cpu(piece, names, values), strict=True)), sizes)
        what = f"{piece.spec.name}, with its layers as outputs"
        with self.platform.explaining_errors(what), ExitStack() as stack:
            graph = self._load(self._built(marked), marked.spec, sizes)
            stack.callback(graph.release)
            found = self._run(graph, sizes, values)
        return [found[name] for name in names]

    def _built(self, marked: GraphFile) -> bytes:
        with tempfile.TemporaryDirectory(prefix="jukebox-verify-") as scratch:
            return self.build(marked, Path(scratch)).read_bytes()

    def build(self, marked: GraphFile, folder: Path) -> Path:
        """Build a marked graph for the device's GPU, in an empty folder, and return the path of the engine."""
        spec, target = marked.spec, self.platform.target
        path, engine = folder / f"{spec.name}.onnx", folder / f"{spec.name}.engine"
        path.write_bytes(marked.model.SerializeToString())
        try:
            for name in self.weight_files:
                (folder / name).symlink_to((marked.path.parent / name).resolve())
        except OSError as error:
            raise EngineError(f"{spec.name}: the weights cannot be linked: {error}.") from error
        gpu = self.platform.device.properties.compute_capability
        known = target is Target.TENSORRT_RTX and gpu in known_capabilities(self.platform.trt)
        options = BuildOptions(target, (gpu,) if known else ())
        build_engine(path, spec, engine, options, self.weight_files)
        return engine

    def _load(self, content: bytes, spec: GraphSpec, sizes: Mapping[str, int]) -> TensorRtGraph:
        engine = self.platform.runtime.deserialize_cuda_engine(content)
        self.platform.require(engine is not None, f"{spec.name}: {self.platform.target} does not accept the engine")
        part = EnginePart(spec, engine, self.platform)
        return TensorRtGraph(spec, [part], self.platform.device, sizes)

    def _run(self, graph: TensorRtGraph, sizes: Mapping[str, int], values: Arrays) -> dict[str, np.ndarray]:
        """Run a graph once, and return its outputs by their names in it."""
        spec, device = graph.spec, self.platform.device
        needed = {_WORK: graph.memory_bytes} | {f"past {t.name}": t.bytes(sizes) for t in spec.inputs}
        needed |= {f"present {t.name}": t.bytes(sizes) for t in spec.outputs if not t.in_place}
        arena = DeviceArena(device, needed)
        try:
            inputs = {t.name: arena[f"past {t.name}"] for t in spec.inputs}
            outputs = {t.name: inputs[t.name] if t.in_place else arena[f"present {t.name}"] for t in spec.outputs}
            graph.set_memory(arena[_WORK], graph.memory_bytes)
            graph.set_sizes(sizes)
            graph.bind(Addresses(inputs, outputs))
            for tensor in spec.inputs:
                device.upload(inputs[tensor.name], np.ascontiguousarray(values[tensor.name]))
            graph.enqueue()
            return {t.output_name: self._download(t, outputs[t.name], sizes) for t in spec.outputs}
        finally:
            arena.release()

    def _download(self, tensor: TensorSpec, address: int, sizes: Mapping[str, int]) -> np.ndarray:
        array = np.empty(tensor.shape(sizes), numpy_dtype(tensor.dtype))
        self.platform.device.download(address, array)
        return array


def marked_graph(piece: GraphFile, like: Arrays, sizes: Mapping[str, int]) -> GraphFile:
    """Return a graph for these sizes only, with further outputs. `like`: arrays of their dtypes and shapes."""
    known = {tensor.output_name for tensor in piece.spec.outputs}
    new = {name: array for name, array in like.items() if name not in known}
    added = (TensorSpec(name, str(array.dtype), array.shape, Role.OUTPUT) for name, array in new.items())
    ranges = tuple(DimensionRange(symbol, size, size, size) for symbol, size in sizes.items())
    spec = replace(piece.spec, tensors=(*piece.spec.tensors, *added), ranges=ranges)
    model = with_outputs(piece, list(new)).model
    for output in model.graph.output:
        if output.name in new:
            array = new[output.name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, array.shape))
    return GraphFile(spec, piece.path, model)
