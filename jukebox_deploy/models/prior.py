"""The priors: an autoregressive core over codes, and what it is conditioned on.

State goes in and comes out; a prior holds weights only. Source: specification sections 8 to 10.
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
    """What a slot knows of its window; tensors as declared for the step."""

    codes: Tensor  # [B, n] ids of the stack's vocabulary
    position: Tensor  # [B]
    known_end: Tensor  # [B]
    start: Tensor | None  # [B, W]
    conditioning: Tensor | None  # [B, n, W]
    caches: Caches
    lyrics: Caches


class Choice(NamedTuple):
    """How a step chooses, and what it found so far; `[B]` each except `uniform` `[B, n]`."""

    window_end: Tensor
    uniform: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    not_finite: Tensor


class Entry(NamedTuple):
    """What goes into the stack; `[B, W]` instead of `[B, Q, W]` in a step."""

    rows: Tensor  # [B, Q, W], in the stack's dtype
    conditioning: Tensor | None  # [B, Q, W], already in the rows
    position: Tensor  # [B], within the context
    addresses: Addresses


class StepResult(NamedTuple):
    """What a step gives; the names are those of its table."""

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
        """`output`: "tied" to the embedding, a matrix of its "own", or "none" (encode only)."""
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
        """The row `[B, W]` in front of the first token: the labels' or the learned one."""
        if start is not None:
            return start
        assert self.start_token is not None
        return self.start_token.expand(batch, -1)

    def embed(self, tokens: Tensor, start: Tensor | None, conditioning: Tensor | None) -> Tensor:
        """Input of the stack for whole sequences: tokens `[B, T]` -> `[B, T, W]`."""
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
        """The stack's output `[B, T, W]` for whole sequences of tokens `[B, T]`."""
        hidden: Tensor = self.transformer(self.embed(tokens, start, conditioning), encoder_states)
        return hidden

    def embed_window(self, window: Window, position: Tensor, queries: int) -> tuple[Tensor, Tensor | None]:
        """Input rows of the stack at `position`..., and the conditioning rows in them; `[B, Q, W]` each."""
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
        """`[..., W]` -> `[..., V]`, float32."""
        weight = self.token_embedding.weight if self.output is None else self.output.weight
        with full_precision(hidden):
            return F.linear(hidden, weight)


class LyricEncoder(nn.Module):
    """A causal core over lyric tokens; state `i` has seen the tokens before `i` (specification 10)."""

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
    """The modules a prior is assembled from; `None` for what it lacks."""

    core: AutoregressiveCore
    labels: LabelConditioner | None
    conditioner: UpsamplerConditioner | None
    lyric_encoder: LyricEncoder | None


class Prior(nn.Module):
    """A top prior or an upsampler."""

    def __init__(self, parts: PriorParts, *, lyric_prefix: int, readds_conditioning: bool) -> None:
        """`lyric_prefix`: lyric positions in front of the music. `readds_conditioning`: after the stack."""
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
        """Labels (names as in the `condition` table) and upper codes -> start row and conditioning rows.

        `[B, W]` and `[B, n, W]`, either `None` where the model has none.
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
        """Logits `[B, T, V]` of whole sequences of ids `[B, T]`, teacher-forced."""
        hidden = self.core.hidden(tokens, start, conditioning, encoder_states)
        if self.readds_conditioning and conditioning is not None:
            hidden = hidden + conditioning[:, : tokens.shape[1]]
        return self.core.logits(hidden)

    def encode_lyrics(self, lyric_tokens: Tensor) -> dict[int, KeyValue]:
        """Lyric tokens `[B, L]` -> keys and values `[B, H, L, D]` of the cross layers, by layer."""
        assert self.lyric_encoder is not None
        return self.core.transformer.lyric_key_values(self.lyric_encoder(lyric_tokens))

    def enter(self, window: Window, queries: int) -> Entry:
        """From a window's state to the input of the stack, for `queries` positions of every slot.

        The window's caches and lyrics are not looked at.
        """
        position, addresses = self.locate(window.position, queries)
        rows, conditioning = self.embed(window, position, queries)
        return Entry(rows, conditioning, position, addresses)

    def locate(self, position: Tensor, queries: int) -> tuple[Tensor, Addresses]:
        """A window's position `[B]`, kept within the context, and where it lives in the caches."""
        transformer = self.core.transformer
        position = position.clamp(max=transformer.geometry.context - queries)
        return position, transformer.locate(position, queries)

    def embed(self, window: Window, position: Tensor, queries: int) -> tuple[Tensor, Tensor | None]:
        """Rows and conditioning of an `Entry`, at a position `[B]` within the context."""
        rows, conditioning = self.core.embed_window(window, position, queries)
        if queries == 1:
            rows, conditioning = rows[:, 0], None if conditioning is None else conditioning[:, 0]
        return rows.to(self.core.transformer.dtype), conditioning

    def prefill(self, window: Window) -> tuple[Tensor, dict[int, KeyValue]]:
        """One block of known codes: the new `position` `[B]` and the caches that go out.

        `position` must be a block's start. Rows beyond `known_end` are computed from whatever the
        codes hold there; every cache entry they write is written again before it is read.
        """
        transformer = self.core.transformer
        entry = self.enter(window, transformer.geometry.block_length)
        _, caches = transformer.forward_cached(entry.rows, entry.addresses, window.caches, window.lyrics)
        return self.leave_prefill(window.position, window.known_end), caches

    def leave_prefill(self, position: Tensor, known_end: Tensor) -> Tensor:
        """The new `position` `[B]`."""
        return torch.minimum(position + self.core.transformer.geometry.block_length, known_end)

    def step(self, window: Window, choice: Choice) -> StepResult:
        """One position of every slot; slots at their `window_end` idle (their codes stay)."""
        entry = self.enter(window, queries=1)
        hidden, caches = self.core.transformer.forward_cached(entry.rows, entry.addresses, window.caches, window.lyrics)
        return self.leave_step(hidden, entry, window, choice)._replace(caches=caches)

    def leave_step(self, hidden: Tensor, entry: Entry, window: Window, choice: Choice) -> StepResult:
        """From the stack's output `[B, W]` to the chosen codes; the result's caches are empty."""
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
        """Weights `[B, H, music positions, lyric tokens]` with which a layer looks at the lyrics.

        Source: specification 12.6.
        """
        states = None if self.lyric_encoder is None else self.lyric_encoder(lyric_tokens)
        rows = self.core.embed(tokens, start, conditioning)
        weights = self.core.transformer.lyric_attention(rows, states, layer)
        return weights[:, :, self.lyric_prefix :, : lyric_tokens.shape[1]]
