"""What an engine launches, from the listing that the builder tells at the end of a build; no GPU is needed for it.

The listing is made for people: what is not understood in it is left out, and no build fails for it. It has a
line for each layer of each profile:

    Name: __myl_CastMulCastFc_myl0_3, LayerType: runtime_fusion, Inputs: [...], Constants: [...], Outputs: [...], ...
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

LISTING_BEGINS = "Layers:"
"""With this the message begins that has the listing."""

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+), "
    r"Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], Outputs: ",
    re.MULTILINE,
)
_COMPILED_GRAPH = re.compile(r"_myl(\d+)_\d+$")  # each profile is compiled by itself
_NO_KERNELS = ("signal", "wait", "shape_call")
_QUANTISED = re.compile(r"Datatype: (?:Int8|Int4|FP8)\b")


@dataclass(frozen=True)
class Launches:
    """What one run of an engine launches, with the profile that launches most."""

    kernels: int
    written_weights: int  # kernels that only multiply quantised weights back, into memory, at every run


def read_launches(listing: str, profiles: int) -> Launches | None:
    """Count the kernels of a listing; `None` where it does not tell the profiles apart, or is none."""
    kernels: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for layer in _LAYER.finditer(listing):
        if layer["type"] in _NO_KERNELS:
            continue
        compiled = _COMPILED_GRAPH.search(layer["name"])
        graph = compiled[1] if compiled and profiles > 1 else ""
        kernels[graph] += 1
        # Nothing goes in but weights: the product with them is another kernel's.
        written[graph] += not layer["inputs"].strip() and _QUANTISED.search(layer["constants"]) is not None
    if len(kernels) != max(1, profiles):
        return None
    return Launches(max(kernels.values()), max(written.values()))
