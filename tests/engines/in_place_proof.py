"""A program that steps on caches whose memory is read-only, but for the pages that the step must write.

Usage: in_place_proof.py BUNDLE LEVEL MODE

Modes: `in place`; and two controls, which the kernel must end with a segmentation fault: `all pages`
(the pages that the step must write are read-only too) and `copy` (the caches go out into other
memory, protected in the same way, so that the runtime has to copy them).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable

import numpy as np

from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine, OnnxRuntimeSession
from jukebox_deploy.engines.onnxruntime.memory import HostBuffer

SLOTS = 2
_PROT_READ, _PROT_WRITE = 1, 2


def protect(buffer: HostBuffer, writable: Iterable[int]) -> None:
    """Make the pages of a tensor read-only, but for some."""
    libc = ctypes.CDLL(None, use_errno=True)
    for page in range(page_count(buffer)):
        flags = _PROT_READ | (_PROT_WRITE if page in writable else 0)
        address = ctypes.c_void_p(buffer.address + page * mmap.PAGESIZE)
        if libc.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_int(flags)):
            raise OSError(ctypes.get_errno(), "mprotect")


def page_count(buffer: HostBuffer) -> int:
    return -(-buffer.array.nbytes // mmap.PAGESIZE)


def changed_pages(before: np.ndarray, after: np.ndarray) -> set[int]:
    changed = np.flatnonzero(before.reshape(-1).view(np.uint8) != after.reshape(-1).view(np.uint8))
    return {int(page) for page in np.unique(changed // mmap.PAGESIZE)}


def fill(session: OnnxRuntimeSession, inputs: dict[str, np.ndarray]) -> None:
    for name, values in inputs.items():
        for slot, value in enumerate(values):
            session.write(name, slot, np.asarray(value))


def random_inputs(session: OnnxRuntimeSession) -> dict[str, np.ndarray]:
    """Plain values for every input: caches of noise, so that every byte that is written shows."""
    random = np.random.default_rng(0)
    inputs = {}
    for tensor in session.spec.inputs:
        shape = tensor.shape({"B": SLOTS})
        floats = tensor.dtype == "float32"
        inputs[tensor.name] = random.standard_normal(shape, np.float32) if floats else np.zeros(shape, tensor.dtype)
    return inputs | {"position": np.array([5, 9])}


def main(folder: str, level: int, mode: str) -> None:
    bundle = open_bundle(folder)
    session = OnnxRuntimeEngine(bundle.manifest.config, bundle.graphs, bundle.paths).prior_session(level, SLOTS)
    states = {tensor.name: session._buffers[tensor.name][0] for tensor in session.spec.states if tensor.in_place}
    caches = {name: buffer for name, buffer in states.items() if isinstance(buffer, HostBuffer)}
    inputs = random_inputs(session)
    fill(session, inputs)
    session.step(1)
    must_write = {name: changed_pages(inputs[name], cache.array) for name, cache in caches.items()}
    fill(session, inputs)
    session.current, guarded = 0, 0
    for name, cache in caches.items():
        pages = must_write[name]
        assert pages, f"the step wrote nothing into {name}"
        guarded += page_count(cache) - len(pages)
        if mode == "copy":
            other = HostBuffer(session.spec.tensor(name), SLOTS)
            array = other.array
            bind = session._step_bindings[0][0].bind_output
            bind(session.spec.tensor(name).output_name, "cpu", 0, array.dtype, array.shape, other.address)
            cache = other
        protect(cache, set() if mode == "all pages" else pages)
    session.step(1)
    print(f"{len(caches)} caches, {guarded} pages left alone", flush=True)
    os._exit(0)  # the protected memory is given back by the kernel


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
