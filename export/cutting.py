"""Number of parts into which the step and the prefill of a large prior are cut, so that each part can be built."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import ITEM_BYTES, LinearWeights, Precision
from jukebox_deploy.costs import linear_weight_bytes
from jukebox_deploy.errors import ExportError
from jukebox_deploy.parameter_counts import attention_layers, mlp_layers
from jukebox_deploy.quantities import byte_size


@dataclass(frozen=True)
class Cutting:
    """A number of parts for every prior, or a limit for the weights of a part."""

    parts: int = 1
    largest_bytes: int | None = None

    def parts_of(self, prior: PriorConfig, precision: Precision, weights: LinearWeights) -> int:
        """Return the number of parts of a prior's step and prefill.

        Raises `ExportError` if a single layer is too large.
        """
        if self.largest_bytes is None:
            return self.parts
        stack = prior.transformer
        layers = attention_layers(stack) + mlp_layers(stack)
        layer_bytes = sum(linear_weight_bytes(layer, precision, weights) for layer in layers) / stack.depth
        ends_bytes = _end_bytes(prior)
        for parts in range(1, stack.depth + 1):
            if -(-stack.depth // parts) * layer_bytes + ends_bytes <= self.largest_bytes:
                return parts
        raise ExportError(
            f"prior {prior.level}: a layer with embeddings or output matrix has {byte_size(layer_bytes + ends_bytes)}, "
            f"so no part has at most {self.largest_bytes / 1e9:g} GB. Give --parts a larger size, or a number of parts."
        )


def _end_bytes(prior: PriorConfig) -> int:
    """Return the bytes of the first part's embeddings in fp32; the last part's output matrix has fewer."""
    return (prior.bins + prior.transformer.context) * prior.transformer.width * ITEM_BYTES["float32"]
