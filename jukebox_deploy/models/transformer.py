"""The transformer stack: over whole sequences for training, over caches for sampling.

Source: specification section 4; paper section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.models.attention import (
    AttentionGeometry,
    attend,
    attention_weights,
    causal_mask,
    full_attention,
)
from jukebox_deploy.models.cached_attention import (
    Address,
    CachePattern,
    KeyValue,
    cache_patterns,
    cached_attention,
)

Caches = Mapping[int, KeyValue]
"""Keys and values by layer."""

Addresses = Mapping[AttentionPattern, Address]
"""Addresses of the current positions in the caches of each pattern."""


class Projection(nn.Module):
    """`x @ weight + bias`, with the weight stored as `(in, out)`, as in the checkpoints."""

    def __init__(self, inputs: int, outputs: int, std: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=dtype))
        nn.init.normal_(self.weight, std=std) if std else nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        product = x @ self.weight
        return product + self.bias.to(product.dtype)  # autocast lowers only the product to half precision


class LayerNorm(nn.LayerNorm):
    """Layer norm that is computed in float32 and cast back (specification 4.1)."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., W]` -> `[..., W]`."""
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class Mlp(nn.Module):
    """Two projections with a quick GELU between them."""

    def __init__(self, width: int, inner: int, std: float, output_std: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.expand = Projection(width, inner, std, dtype)
        self.contract = Projection(inner, width, output_std, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., W]` -> `[..., W]`."""
        inner = self.expand(x)
        return self.contract(inner * torch.sigmoid(1.702 * inner))


class Attention(nn.Module):
    """One attention pattern with its projections; heads are contiguous slices of the state."""

    def __init__(
        self,
        width: int,
        state_width: int,
        heads: int,
        pattern: AttentionPattern,
        std: float,
        output_std: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.pattern = pattern
        self.scale = (state_width // heads) ** -0.25
        if pattern is AttentionPattern.CROSS:
            self.query = Projection(width, state_width, std, dtype)
            self.encoder_key_value = Projection(width, 2 * state_width, std, dtype)
        else:
            self.query_key_value = Projection(width, 3 * state_width, std, dtype)
        self.output = Projection(state_width, width, output_std, dtype)

    def split(self, x: Tensor, parts: int = 1) -> tuple[Tensor, ...]:
        """Split projected rows `[..., parts * S]` into `parts` tensors `[B, H, Q, D]`; `Q` is 1 for rows `[B, ...]`."""
        heads = parts * self.heads
        if x.dim() == 2:
            return x.reshape(x.shape[0], heads, 1, x.shape[1] // heads).chunk(parts, dim=1)
        return x.unflatten(-1, (heads, -1)).transpose(1, 2).chunk(parts, dim=1)

    def merge(self, x: Tensor, *, single: bool = False) -> Tensor:
        """Merge the heads and apply the output projection: `[B, H, Q, D]` -> `[B, Q, W]`, `[B, W]` if `single`."""
        projected: Tensor = self.output(x.flatten(1) if single else x.transpose(1, 2).flatten(2))
        return projected

    def self_projections(self, x: Tensor) -> tuple[Tensor, KeyValue]:
        """Compute the scaled query, the scaled key and the value of self-attention, `[B, H, Q, D]` each."""
        query, key, value = self.split(self.query_key_value(x), 3)
        return query * self.scale, KeyValue(key * self.scale, value)

    def cross_query(self, x: Tensor) -> Tensor:
        """Compute the scaled query of cross-attention, `[B, H, Q, D]`."""
        (query,) = self.split(self.query(x))
        return query * self.scale

    def cross_key_value(self, encoder_states: Tensor) -> KeyValue:
        """Compute the scaled key and the value `[B, H, L, D]` of the lyric encoder's states `[B, L, W]`."""
        key, value = self.split(self.encoder_key_value(encoder_states), 2)
        return KeyValue(key * self.scale, value)

    def forward(self, x: Tensor, geometry: AttentionGeometry, encoder_states: Tensor | None) -> Tensor:
        """Attend within a whole sequence `[B, T, W]` or, with cross-attention, to the encoder's states `[B, L, W]`."""
        if self.pattern is AttentionPattern.CROSS:
            assert encoder_states is not None
            return self.merge(attend(self.cross_query(x), *self.cross_key_value(encoder_states)))
        query, new = self.self_projections(x)
        return self.merge(full_attention(self.pattern, query, new.key, new.value, geometry))


class Layer(nn.Module):
    """Pre-norm attention and MLP; both results are added at the end (specification 4.2)."""

    def __init__(self, attention: Attention, mlp: Mlp, width: int, residual_scale: float) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = LayerNorm(width)
        self.mlp = mlp
        self.mlp_norm = LayerNorm(width)
        self.residual_scale = residual_scale

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the attention's result and the MLP's, in the dtype of `x`, so that the residual stream keeps its dtype.

        Under autocast, both results come in half precision.
        """
        attended = attended.to(x.dtype)
        middle = x + attended
        mlp = self.mlp(self.mlp_norm(middle)).to(x.dtype)
        if self.residual_scale == 1.0:
            return middle + mlp
        return x + (attended + mlp) * self.residual_scale

    def forward(self, x: Tensor, geometry: AttentionGeometry, encoder_states: Tensor | None) -> Tensor:
        """Process a whole sequence, `[B, T, W]` -> `[B, T, W]`."""
        return self.finish(x, self.attention(self.attention_norm(x), geometry, encoder_states))

    def forward_cross(self, x: Tensor, lyrics: KeyValue) -> Tensor:
        """Process new rows that attend to the keys and values of lyrics; shapes as in `Transformer.forward_cached`."""
        attended = attend(self.attention.cross_query(self.attention_norm(x)), *lyrics)
        return self.finish(x, self.attention.merge(attended, single=x.dim() == 2))

    def forward_cached(
        self, x: Tensor, pattern: CachePattern, address: Address, past: KeyValue
    ) -> tuple[Tensor, KeyValue]:
        """Process new rows over a cache; return them with the updated cache, shapes as in the transformer's method."""
        query, new = self.attention.self_projections(self.attention_norm(x))
        attended, present = cached_attention(pattern, address, query, new, past)
        return self.finish(x, self.attention.merge(attended, single=x.dim() == 2)), present


class StackOptions(NamedTuple):
    """Options of a stack."""

    width: int
    state_width: int
    mlp_width: int
    heads: int
    patterns: tuple[AttentionPattern, ...]
    geometry: AttentionGeometry
    init_scale: float = 1.0
    zero_output: bool = False
    scale_residual: bool = False
    dtype: torch.dtype = torch.float32


def _build_layer(options: StackOptions, pattern: AttentionPattern) -> Layer:
    std = 0.02 * options.init_scale
    # Cross-attention layers are always initialised as the identity (specification 4.2).
    output_std = 0.0 if options.zero_output or pattern is AttentionPattern.CROSS else std
    attention = Attention(options.width, options.state_width, options.heads, pattern, std, output_std, options.dtype)
    mlp = Mlp(options.width, options.mlp_width, std, output_std, options.dtype)
    return Layer(attention, mlp, options.width, 1 / len(options.patterns) if options.scale_residual else 1.0)


class Transformer(nn.Module):
    """The stack of layers. It computes in `dtype`, while its input and output are float32; it has no final norm."""

    def __init__(self, options: StackOptions) -> None:
        super().__init__()
        self.geometry = options.geometry
        self.heads = options.heads
        self.dtype = options.dtype
        self.layers = nn.ModuleList(_build_layer(options, pattern) for pattern in options.patterns)

    def typed_layers(self) -> list[Layer]:
        """Return the layers with their type, which `nn.ModuleList` does not know."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def forward(self, x: Tensor, encoder_states: Tensor | None = None) -> Tensor:
        """Process whole sequences, `[B, T, W]` -> `[B, T, W]`; cross layers attend to `encoder_states` `[B, L, W]`."""
        x = x.to(self.dtype)
        states = None if encoder_states is None else encoder_states.to(self.dtype)
        for layer in self.typed_layers():
            x = layer(x, self.geometry, states)
        return x.float()

    def cache_patterns(self, queries: int) -> dict[AttentionPattern, CachePattern]:
        """Return the cache patterns of this stack for a step (`queries` 1) or a prefill (`queries` of a block)."""
        used = {layer.attention.pattern for layer in self.typed_layers()}
        patterns = cache_patterns(self.geometry, self.heads, queries)
        return {name: pattern for name, pattern in patterns.items() if name in used}

    def locate(self, position: Tensor, queries: int) -> Addresses:
        """Return the addresses of `queries` positions from `position` `[B]` on in the caches of each pattern.

        `queries` is 1 (a step) or the length of a block, with `position` at the start of a block (a prefill).
        """
        patterns = self.cache_patterns(queries)
        return {name: pattern.locate(position, queries) for name, pattern in patterns.items()}

    def forward_cached(
        self, x: Tensor, addresses: Addresses, caches: Caches, lyrics: Caches
    ) -> tuple[Tensor, dict[int, KeyValue]]:
        """Process new rows, in `dtype`, over the caches by layer; return them with the updated caches.

        Rows are `[B, W]` in a step, which has one position per slot, and `[B, Q, W]` in a prefill. Two axes let engines
        fuse matrix products with their biases, and the heads need no transposition. `lyrics` has the keys and values
        of the cross layers.
        """
        patterns = self.cache_patterns(1 if x.dim() == 2 else x.shape[1])
        presents: dict[int, KeyValue] = {}
        for index, layer in enumerate(self.typed_layers()):
            name = layer.attention.pattern
            if name is AttentionPattern.CROSS:
                x = layer.forward_cross(x, lyrics[index])
            else:
                x, presents[index] = layer.forward_cached(x, patterns[name], addresses[name], caches[index])
        return x, presents

    def lyric_key_values(self, encoder_states: Tensor) -> dict[int, KeyValue]:
        """Compute the keys and values of the cross layers, by layer, from the encoder's states `[B, L, W]`."""
        states = encoder_states.to(self.dtype)
        return {
            index: layer.attention.cross_key_value(states)
            for index, layer in enumerate(self.typed_layers())
            if layer.attention.pattern is AttentionPattern.CROSS
        }

    def lyric_attention(self, x: Tensor, encoder_states: Tensor | None, layer_index: int) -> Tensor:
        """Compute the softmax weights `[B, H, T, L]` with which a layer attends to the lyrics (specification 12.6)."""
        x = x.to(self.dtype)
        states = None if encoder_states is None else encoder_states.to(self.dtype)
        layers = self.typed_layers()
        for layer in layers[:layer_index]:
            x = layer(x, self.geometry, states)
        layer = layers[layer_index]
        normed, attention = layer.attention_norm(x), layer.attention
        if attention.pattern is AttentionPattern.CROSS:
            assert states is not None
            return attention_weights(attention.cross_query(normed), attention.cross_key_value(states).key)
        query, new = attention.self_projections(normed)
        key = new.key[:, :, : self.geometry.prime_span]
        return attention_weights(query, key, causal_mask(query.shape[2], key.shape[2], x.device))
