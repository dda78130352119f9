"""The priors: an autoregressive core over codes, with its conditioners.

A prior holds only weights; the state of sampling is passed in and returned. Source: specification sections 8 to 10.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jukebox_deploy.models.cached_attention import KeyValue
from jukebox_deploy.models.conditioners import LabelConditioner, UpsamplerConditioner
from jukebox_deploy.models.full_precision import full_precision
from jukebox_deploy.models.token_choice import choose_codes, logits_are_finite
from jukebox_deploy.models.transformer import Addresses, Caches, LayerNorm, Projection, Transformer


class Window(NamedTuple):
    """State of the slots' windows that the step and the prefill read; tensors as declared for the step."""

    codes: Tensor  # [B, n] ids in the stack's vocabulary
    position: Tensor  # [B]
    known_end: Tensor  # [B]
    start: Tensor | None  # [B, W]
    conditioning: Tensor | None  # [B, n, W]
    caches: Caches
    lyrics: Caches


class Choice(NamedTuple):
    """Sampling inputs of a step, and the flag `not_finite` so far; `[B]` each except `uniform` `[B, n]`."""

    window_end: Tensor
    uniform: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    not_finite: Tensor


class Entry(NamedTuple):
    """Input of the stack; in a step, rows are `[B, W]` instead of `[B, Q, W]`."""

    rows: Tensor  # [B, Q, W], in the stack's dtype
    conditioning: Tensor | None  # [B, Q, W], already added to the rows
    position: Tensor  # [B], clamped to the context
    addresses: Addresses


class StepResult(NamedTuple):
    """Outputs of a step, named as in its declaration."""

    codes: Tensor
    position: Tensor
    not_finite: Tensor
    logits: Tensor
    caches: dict[int, KeyValue]


class AutoregressiveCore(nn.Module):
    """Embeddings, stack and output matrix. Position `i` holds token `i - 1` and predicts token `i`."""

    start_token: nn.Parameter | None

    def __init__(
        self,
        bins: int,
        transformer: Transformer,
        width: int,
        *,
        start_token: bool,
        output: str,
        init_scale: float = 1.0,
    ) -> None:
        """Build the core; `output` is "tied" to the embedding, a matrix of its "own", or "none" (encode only)."""
        super().__init__()
        self.transformer = transformer
        self.token_embedding = nn.Embedding(bins, width)
        self.position_embedding = nn.Parameter(torch.empty(transformer.geometry.context, width))
        self.start_token = nn.Parameter(torch.empty(1, width)) if start_token else None
        self.output = nn.Linear(width, bins, bias=False) if output == "own" else None
        nn.init.normal_(self.token_embedding.weight, std=0.02 * init_scale)
        nn.init.normal_(self.position_embedding, std=0.01 * init_scale)
        if self.start_token is not None:
            nn.init.normal_(self.start_token, std=0.01 * init_scale)

    def start_row(self, start: Tensor | None, batch: int) -> Tensor:
        """Return the row `[B, W]` that stands before the first token: `start` from the labels, or the learned one."""
        if start is not None:
            return start
        assert self.start_token is not None
        return self.start_token.expand(batch, -1)

    def embed(self, tokens: Tensor, start: Tensor | None, conditioning: Tensor | None) -> Tensor:
        """Embed whole sequences as input of the stack: tokens `[B, T]` -> `[B, T, W]`."""
        length = tokens.shape[1]
        first = self.start_row(start, tokens.shape[0])[:, None]
        rows = torch.cat([first, self.token_embedding(tokens[:, :-1])], dim=1)
        rows = rows + self.position_embedding[:length]
        return rows if conditioning is None else rows + conditioning[:, :length]

    def hidden(
        self,
        tokens: Tensor,
        start: Tensor | None,
        conditioning: Tensor | None = None,
        encoder_states: Tensor | None = None,
    ) -> Tensor:
        """Compute the stack's output `[B, T, W]` for whole sequences of tokens `[B, T]`."""
        hidden: Tensor = self.transformer(self.embed(tokens, start, conditioning), encoder_states)
        return hidden

    def embed_window(self, window: Window, position: Tensor, queries: int) -> tuple[Tensor, Tensor | None]:
        """Embed `queries` positions from `position` `[B]` on.

        Returns the rows and the conditioning that they include, `[B, Q, W]` each.
        """
        batch, context = window.codes.shape
        positions = position[:, None] + torch.arange(queries, device=position.device)
        tokens = window.codes.gather(1, (positions - 1).clamp(min=0))
        first = self.start_row(window.start, batch)[:, None]
        rows = torch.where((positions == 0)[..., None], first, self.token_embedding(tokens))
        rows = rows + F.embedding(positions, self.position_embedding)
        if window.conditioning is None:
            return rows, None
        flat = positions + torch.arange(batch, device=position.device)[:, None] * context
        conditioning = F.embedding(flat, window.conditioning.flatten(0, 1))
        return rows + conditioning, conditioning

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits, `[..., W]` -> `[..., V]`, in float32."""
        weight = self.token_embedding.weight if self.output is None else self.output.weight
        with full_precision(hidden):
            return F.linear(hidden, weight)


class LyricEncoder(nn.Module):
    """A causal core over lyric tokens; state `i` depends on the tokens before `i` (specification 10)."""

    def __init__(self, core: AutoregressiveCore, encoder_width: int, width: int, vocabulary: int) -> None:
        super().__init__()
        self.core = core
        self.projection = Projection(encoder_width, width, std=0.02)
        self.norm = LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)

    def forward(self, lyric_tokens: Tensor) -> Tensor:
        """Tokens `[B, L]` -> encoder states `[B, L, W]`."""
        states: Tensor = self.norm(self.projection(self.core.hidden(lyric_tokens, None)).float())
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Encoder states `[B, L, W]` -> logits `[B, L, V]` of the lyric tokens, for the loss."""
        with full_precision(states):
            logits: Tensor = self.output(states)
        return logits


class PriorParts(NamedTuple):
    """The modules that a prior is assembled from; `None` for those it lacks."""

    core: AutoregressiveCore
    labels: LabelConditioner | None
    conditioner: UpsamplerConditioner | None
    lyric_encoder: LyricEncoder | None


class Prior(nn.Module):
    """A top prior or an upsampler."""

    def __init__(self, parts: PriorParts, *, lyric_prefix: int, readds_conditioning: bool) -> None:
        """Assemble a prior.

        Args:
            parts: its modules.
            lyric_prefix: number of lyric positions before the music.
            readds_conditioning: whether the conditioning is added a second time, to the stack's output.
        """
        super().__init__()
        self.core = parts.core
        self.labels = parts.labels
        self.conditioner = parts.conditioner
        self.lyric_encoder = parts.lyric_encoder
        self.lyric_prefix = lyric_prefix
        self.readds_conditioning = readds_conditioning

    def condition(
        self, labels: dict[str, Tensor], upper_codes: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute the start row `[B, W]` and the conditioning rows `[B, n, W]` of a window.

        `labels` are named as in the declaration of `condition`. Either result is `None` if the model has none.
        """
        start, conditioning = self.labels(**labels) if self.labels is not None else (None, None)
        if self.conditioner is not None:
            conditioning = self.conditioner(upper_codes)
        if conditioning is not None and self.lyric_prefix:
            conditioning = F.pad(conditioning, (0, 0, self.lyric_prefix, 0))
        return start, conditioning

    def forward(
        self,
        tokens: Tensor,
        start: Tensor | None = None,
        conditioning: Tensor | None = None,
        encoder_states: Tensor | None = None,
    ) -> Tensor:
        """Compute the teacher-forced logits `[B, T, V]` of whole sequences of ids `[B, T]`."""
        hidden = self.core.hidden(tokens, start, conditioning, encoder_states)
        if self.readds_conditioning and conditioning is not None:
            hidden = hidden + conditioning[:, : tokens.shape[1]]
        return self.core.logits(hidden)

    def encode_lyrics(self, lyric_tokens: Tensor) -> dict[int, KeyValue]:
        """Lyric tokens `[B, L]` -> keys and values `[B, H, L, D]` of the cross layers, by layer."""
        assert self.lyric_encoder is not None
        return self.core.transformer.lyric_key_values(self.lyric_encoder(lyric_tokens))

    def enter(self, window: Window, queries: int) -> Entry:
        """Compute the input of the stack for `queries` positions of every slot.

        The window's caches and lyrics are not read.
        """
        position, addresses = self.locate(window.position, queries)
        rows, conditioning = self.embed(window, position, queries)
        return Entry(rows, conditioning, position, addresses)

    def locate(self, position: Tensor, queries: int) -> tuple[Tensor, Addresses]:
        """Clamp a window's position `[B]` to the context; return it with its addresses in the caches."""
        transformer = self.core.transformer
        position = position.clamp(max=transformer.geometry.context - queries)
        return position, transformer.locate(position, queries)

    def embed(self, window: Window, position: Tensor, queries: int) -> tuple[Tensor, Tensor | None]:
        """Compute the rows and the conditioning of an `Entry` at a position `[B]` within the context."""
        rows, conditioning = self.core.embed_window(window, position, queries)
        if queries == 1:
            rows, conditioning = rows[:, 0], None if conditioning is None else conditioning[:, 0]
        return rows.to(self.core.transformer.dtype), conditioning

    def prefill(self, window: Window) -> tuple[Tensor, dict[int, KeyValue]]:
        """Prefill one block of known codes; return the new `position` `[B]` and the updated caches.

        `position` must be the start of a block. Rows from `known_end` on are computed from arbitrary codes, but every
        cache entry that they write is overwritten before it is read.
        """
        transformer = self.core.transformer
        entry = self.enter(window, transformer.geometry.block_length)
        _, caches = transformer.forward_cached(entry.rows, entry.addresses, window.caches, window.lyrics)
        return self.leave_prefill(window.position, window.known_end), caches

    def leave_prefill(self, position: Tensor, known_end: Tensor) -> Tensor:
        """Return the new `position` `[B]`, at most `known_end`."""
        return torch.minimum(position + self.core.transformer.geometry.block_length, known_end)

    def step(self, window: Window, choice: Choice) -> StepResult:
        """Sample one position of every slot; slots at their `window_end` idle, and their codes stay."""
        entry = self.enter(window, queries=1)
        hidden, caches = self.core.transformer.forward_cached(entry.rows, entry.addresses, window.caches, window.lyrics)
        return self.leave_step(hidden, entry, window, choice)._replace(caches=caches)

    def leave_step(self, hidden: Tensor, entry: Entry, window: Window, choice: Choice) -> StepResult:
        """Choose codes from the stack's output `[B, W]`; the caches in the result are empty."""
        hidden = hidden.float()
        if self.readds_conditioning and entry.conditioning is not None:
            hidden = hidden + entry.conditioning
        logits = self.core.logits(hidden)
        column = entry.position[:, None]
        uniform = choice.uniform.gather(1, column)[:, 0]
        drawn = choose_codes(logits, uniform, choice.temperature, choice.top_k, choice.top_p)
        fixed = (window.position < window.known_end) | (window.position >= choice.window_end)
        given = window.codes.gather(1, column)
        code = torch.where(fixed[:, None], given, drawn[:, None].to(window.codes.dtype))
        codes = window.codes.scatter(1, column, code)
        moved = torch.where(window.position < choice.window_end, window.position + 1, window.position)
        not_finite = choice.not_finite | ~logits_are_finite(logits)
        return StepResult(codes, moved, not_finite, logits, {})

    def lyric_attention(
        self, tokens: Tensor, start: Tensor | None, conditioning: Tensor | None, lyric_tokens: Tensor, layer: int
    ) -> Tensor:
        """Compute the weights `[B, H, music positions, lyric tokens]` with which a layer attends to the lyrics.

        Source: specification 12.6.
        """
        states = None if self.lyric_encoder is None else self.lyric_encoder(lyric_tokens)
        rows = self.core.embed(tokens, start, conditioning)
        weights = self.core.transformer.lyric_attention(rows, states, layer)
        return weights[:, :, self.lyric_prefix :, : lyric_tokens.shape[1]]
