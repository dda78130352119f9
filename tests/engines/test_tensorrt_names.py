"""Every name of TensorRT's Python API that the code uses exists in each flavour it is used with.

The names were recorded from both packages (goldens/trt_names.json), so that the check needs neither.
Names that one flavour lacks must stand in a function that asks for the attribute first.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jukebox_deploy.engines.tensorrt
from tests.engines import fake_tensorrt

SOURCES = sorted(Path(jukebox_deploy.engines.tensorrt.__file__).parent.glob("*.py"))
_RUNNER = {"engine", "runtime", "features", "graph", "kernels", "session"}
RUNNER = [path for path in SOURCES if path.stem in _RUNNER]
NAMES = json.loads((Path(__file__).parents[1] / "goldens" / "trt_names.json").read_text())
FLAVOURS = ("tensorrt", "tensorrt_rtx")
CLASS_OF_VARIABLE = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "builder_config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
}
"""What a variable of that name is, wherever the code speaks of TensorRT."""


def known(group: str) -> set[str]:
    """The recorded names of a group, as `Class.member`."""
    return {
        f"{name}.{member}" if member else name
        for name, members in NAMES[group].items()
        for member in ("", *members.split())
    }


def used_names(tree: ast.AST) -> Iterator[str]:
    """`trt.A.b` gives `A` and `A.b`; `builder.x` gives `Builder.x`; an overridden method its class's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [b.attr for b in node.bases if isinstance(b, ast.Attribute) and ast.unparse(b.value) == "trt"]
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and not function.name.startswith("__"):
                    yield from (f"{base}.{function.name}" for base in bases)
        if not isinstance(node, ast.Attribute):
            continue
        head, *members = ast.unparse(node).split(".")
        if "(" in "".join(members):
            continue  # of what a call gives; the call itself is a node too
        if any(member.startswith("__") for member in members):
            continue
        if head == "trt":
            yield ".".join(members[:2])
        elif head in CLASS_OF_VARIABLE:
            yield f"{CLASS_OF_VARIABLE[head]}.{members[0]}"


def asked_for(tree: ast.AST) -> set[str]:
    """The attributes that `hasattr` asks for."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr"]
    return {str(argument.value) for call in calls if isinstance(argument := call.args[1], ast.Constant)}


def unknown_names(source: str) -> list[str]:
    """Names that a flavour lacks and that nobody asked for first."""
    return [
        name
        for function in ast.parse(source).body
        for name in used_names(function)
        if name not in known("both") and not is_gated(name, function)
    ]


def is_gated(name: str, function: ast.AST) -> bool:
    """Whether only one flavour has the name, and the function asks for an attribute of that flavour."""
    return any(
        name in known(flavour) and asked_for(function) & {other.rpartition(".")[2] for other in known(flavour)}
        for flavour in FLAVOURS
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_name_exists(path: Path) -> None:
    assert unknown_names(path.read_text()) == []


def test_the_code_is_seen() -> None:
    used = {name for path in SOURCES for name in used_names(ast.parse(path.read_text()))}
    assert {
        "Builder",
        "Builder.build_serialized_network_to_stream",
        "IBuilderConfig.set_compute_capability",
        "IOptimizationProfile.set_shape",
        "IProgressMonitor.step_complete",
        "OnnxParser.parse_from_file",
        "Runtime.deserialize_cuda_engine",
        "Runtime.engine_host_code_allowed",
        "Runtime.load_runtime",
        "Refitter.refit_cuda_engine",
        "OnnxParserRefitter.refit_from_file",
        "ICudaEngine.weight_streaming_budget_v2",
        "Runtime.get_engine_validity",
        "ICudaEngine.get_aliased_input_tensor",
        "ICudaEngine.get_tensor_profile_shape",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.is_stream_capturable",
        "IExecutionContext.set_device_memory",
        "IRuntimeConfig.set_execution_context_allocation_strategy",
        "IRuntimeConfig.set_runtime_cache",
        "IRuntimeCache.deserialize",
        "IRuntimeCache.serialize",
        "LayerType.KV_CACHE_UPDATE",
    } <= used


@pytest.mark.parametrize(
    ("source", "unknown"),
    [
        ("def f(trt): trt.Bulider()", ["Bulider"]),
        ("def f(trt): trt.DataType.INT5", ["DataType.INT5"]),
        ("def f(builder): builder.build_engine_with_config()", ["Builder.build_engine_with_config"]),
        (
            "def f(builder_config): builder_config.num_compute_capabilities = 1",
            ["IBuilderConfig.num_compute_capabilities"],
        ),
        (
            "def f(builder_config):\n"
            "    if hasattr(builder_config, 'num_compute_capabilities'):\n"
            "        builder_config.num_compute_capabilities = 1\n",
            [],
        ),
        ("def f(engine): engine.get_binding_shape(0)", ["ICudaEngine.get_binding_shape"]),
        ("def f(context, stream): context.is_stream_capturable(stream)", ["IExecutionContext.is_stream_capturable"]),
        (
            "def f(context, stream):\n"
            "    if hasattr(context, 'is_stream_capturable'):\n"
            "        context.is_stream_capturable(stream)\n",
            [],
        ),
        (
            "def f(trt):\n    class M(trt.IProgressMonitor):\n        def phase_begin(self): ...",
            ["IProgressMonitor.phase_begin"],
        ),
    ],
)
def test_the_check_can_fail(source: str, unknown: list[str]) -> None:
    assert unknown_names(source) == unknown


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_record_is_that_of_the_package(flavour: str) -> None:
    module = pytest.importorskip(flavour)
    if module.__version__ != NAMES["versions"][flavour]:
        pytest.skip(f"the record is of version {NAMES['versions'][flavour]}")
    recorded = known("both") | known(flavour)
    missing = [name for name in recorded if not _exists(module, name)]
    assert missing == []


def _exists(module: object, name: str) -> bool:
    for part in name.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True


FAKES = {
    "Runtime": fake_tensorrt.RtxRuntime,
    "ICudaEngine": fake_tensorrt.ICudaEngine,
    "IExecutionContext": fake_tensorrt.RtxExecutionContext,
    "IRuntimeConfig": fake_tensorrt.RtxRuntimeConfig,
    "IRuntimeCache": fake_tensorrt.IRuntimeCache,
}
"""What stands for TensorRT-RTX in the tests of the runner."""


def called(name: str) -> dict[str, Any]:
    """The functions of a class that stands for one of TensorRT's, as far as the backend calls them."""
    used = {used for path in SOURCES for used in used_names(ast.parse(path.read_text()))}
    return {
        member: function
        for member, function in inspect.getmembers(FAKES[name], inspect.isfunction)
        if f"{name}.{member}" in used
    }


@pytest.mark.parametrize("name", FAKES)
def test_the_pretended_runtime_takes_what_the_real_one_takes(name: str) -> None:
    """Arguments are passed by place, so it is their number that counts, and that the name is a function's."""
    module = pytest.importorskip("tensorrt_rtx")
    functions = called(name)
    assert functions
    for member, function in functions.items():
        real = str(getattr(getattr(module, name), member).__doc__)
        overloads = re.findall(rf"{member}\(self: [^,)]+((?:, \w+: [^,)]+(?:\[[^\]]*\])?(?: = [^,)]+)?)*)\)", real)
        counts = {len(re.findall(r", \w+: ", arguments)) for arguments in overloads}
        assert len(inspect.signature(function).parameters) - 1 in counts, (name, member, overloads)


def test_the_pretended_runtime_has_all_that_the_runner_uses() -> None:
    used = {used for path in RUNNER for used in used_names(ast.parse(path.read_text()))}
    missing = [
        used_name
        for used_name in used
        for name, _, member in [used_name.partition(".")]
        if name in FAKES and member and not _has(FAKES[name], member)
    ]
    assert missing == []


def _has(kind: type, member: str) -> bool:
    return hasattr(kind, member) or f"self.{member} =" in inspect.getsource(inspect.getmodule(kind) or kind)
