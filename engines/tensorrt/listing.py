"""Number of kernels that an engine launches, from the builder's listing at the end of a build; this needs no GPU.

The listing is meant for people, so lines that are not understood are skipped, and never fail a build. It has a line for
each layer of each profile:

    Name: __myl_CastMulCastFc_myl0_3, LayerType: runtime_fusion, Inputs: [...], Constants: [...], Outputs: [...], ...
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

LISTING_BEGINS = "Layers:"
"""Beginning of the message with the listing."""

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+), "
    r"Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: ",
    re.MULTILINE,
)
_COMPILED_GRAPH = re.compile(r"_myl(\d+)_\d+$")  # the number of the profile's compiled graph
_NO_KERNELS = ("signal", "wait", "shape_call")
_QUANTISED = re.compile(r"Datatype: (Int8|Int4|FP8)\b")


@dataclass(frozen=True)
class Launches:
    """Numbers of kernels that one run of an engine launches, for the profile that launches most."""

    kernels: int
    written_weights: int  # kernels that only dequantise weights to memory, in every run
    written_types: frozenset[str] = frozenset()  # data types of these weights, in any profile: "Int8", "Int4", "FP8"


def read_launches(listing: str, profiles: int) -> Launches | None:
    """Count the kernels of a listing; `None` if it does not distinguish the profiles, or is not a listing."""
    kernels: Counter[str] = Counter()
    written: Counter[str] = Counter()
    types: set[str] = set()
    for layer in _LAYER.finditer(listing):
        if layer["type"] in _NO_KERNELS:
            continue
        compiled = _COMPILED_GRAPH.search(layer["name"])
        graph = compiled[1] if compiled and profiles > 1 else ""
        kernels[graph] += 1
        # Without inputs other than quantised weights, a kernel can only dequantise them for another one.
        quantised = [] if layer["inputs"].strip() else _QUANTISED.findall(layer["constants"])
        written[graph] += bool(quantised)
        types.update(quantised)
    if len(kernels) != max(1, profiles):
        return None
    return Launches(max(kernels.values()), max(written.values()), frozenset(types))
