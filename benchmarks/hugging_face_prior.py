"""The baseline `hugging-face`: the prior of `transformers`, with its own caches, on this project's weights.

Only its autoregressive core is built, and it uses the same weight tensors as this project's prior. Where it computes
something else than the original, the speed is not affected (specification 16.4).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.benchmarks.growing_caches import kept_positions
from jukebox_deploy.benchmarks.sequential_prior import SequentialPrior
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.tool_versions import tool_versions

if TYPE_CHECKING:
    from torch import Tensor

    from jukebox_deploy.models.prior import Choice, Prior, StepResult, Window

VERSION = "4.57.6"
"""The version of `transformers` whose Jukebox was compared with this project's."""


def reason_to_leave_out(prior: PriorConfig, precision: Precision) -> str | None:
    """Return why `transformers` cannot run this prior here; `None` if it can."""
    found = tool_versions("transformers").get("transformers")
    if found is None:
        return f"transformers=={VERSION} is not installed"
    if found != VERSION:
        return f"it needs transformers=={VERSION}, and {found} is installed"
    if prior.transformer.order is not AttentionOrder.FACTORED or prior.lyrics:
        return "it is set up only for priors without lyrics whose attention order is factored"
    if precision is not Precision.FP32:
        return f"it is set up for fp32 only, not for {precision}"
    return None


class HuggingFacePrior(SequentialPrior):
    """The prior of `transformers` as a `SequentialPrior`. It draws codes with its own random numbers."""

    def __init__(self, prior: Prior, config: PriorConfig) -> None:
        """`prior`: this project's prior, whose weights are used; `config`: its configuration."""
        super().__init__(prior)
        self._theirs = _their_core(prior, config)

    def _fill(self, position: int, slots: int) -> None:
        import torch

        stack = self.prior.core.transformer
        for ours, theirs in zip(stack.typed_layers(), self._theirs.transformer._attn_mods, strict=True):
            attention = theirs.attn
            attention.del_cache()
            attention.sample_t = position
            if position:
                kept = kept_positions(ours.attention.pattern, stack.geometry, position)
                shape = (slots, kept, attention.hidden_dim)
                attention.cache = {name: torch.empty(shape).fill_(0) for name in ("key", "value")}

    def _embed(self, window: Window, position: int) -> tuple[Tensor, Tensor]:
        """Return the input row of the stack and the conditioning that it includes, `[B, 1, W]` each."""
        slots = window.codes.shape[0]
        tokens = window.codes[:, position - 1 : position].long() if position else None
        conditioning = window.conditioning
        if conditioning is None:
            conditioning = self.prior.core.position_embedding.new_zeros(slots, 1, self._theirs.width)
        rows, condition = self._theirs.get_emb(position, slots, tokens, conditioning, window.start)
        return rows, condition

    def _step(self, window: Window, choice: Choice) -> StepResult:
        from jukebox_deploy.models.prior import StepResult

        rows, conditioning = self._embed(window, self.filled)
        hidden = self._theirs.transformer(rows, sample=True)
        if self._theirs.add_cond_after_transformer:
            hidden = hidden + conditioning
        logits = self._theirs.fc_proj_out(hidden)[:, 0]
        drawn = _draw(logits, choice)
        codes = window.codes.scatter(1, window.position[:, None], drawn[:, None].to(window.codes.dtype))
        return StepResult(codes, window.position + 1, choice.not_finite, logits, {})

    def _prefill(self, window: Window, count: int) -> None:
        import torch

        rows = [self._embed(window, position)[0] for position in range(self.filled, self.filled + count)]
        self._theirs.transformer(torch.cat(rows, dim=1), sample=True)


def _module(name: str) -> Any:
    """Import a module of `transformers`' Jukebox, which has no type information."""
    return importlib.import_module(f"transformers.models.deprecated.jukebox.{name}")


def _draw(logits: Tensor, choice: Choice) -> Tensor:
    """Draw codes `[B]` from logits `[B, V]` in the same way as the sampling loop of `transformers`."""
    import torch

    filtered = _module("modeling_jukebox").filter_logits(logits / choice.temperature[:, None], top_k=0, top_p=0.0)
    return torch.distributions.Categorical(logits=filtered).sample()


def _their_core(prior: Prior, config: PriorConfig) -> Any:
    """Build the core of `transformers` on the weight tensors of a prior."""
    import torch

    from jukebox_deploy.checkpoints.names import HUGGING_FACE, file_names

    stack = config.transformer
    settings = _module("configuration_jukebox").JukeboxPriorConfig(
        hidden_size=stack.width,
        num_layers=stack.depth,
        n_heads=stack.heads,
        n_ctx=stack.context,
        blocks=stack.blocks,
        attention_multiplier=stack.attention_ratio,
        mlp_multiplier=stack.mlp_ratio,
        attn_res_scale=stack.scale_residual,
        music_vocab_size=config.codebook_size,
        merged_decoder=config.merged_decoder,
        attention_pattern="raw_column_previous_row_attention",
        mask=True,
        nb_relevant_lyric_tokens=0,
        is_encoder_decoder=False,
    )
    with torch.device("meta"):
        theirs = _module("modeling_jukebox").JukeboxConditionalAutoregressive(
            settings, audio_conditioning=config.has_conditioning, metadata_conditioning=config.labels is not None
        )
    ours = {f"core.{name}": tensor for name, tensor in prior.core.state_dict().items()}
    names = file_names(HUGGING_FACE, config, ours)
    state = {their_name: ours[our_name] for our_name, their_names in names.items() for their_name in their_names}
    theirs.load_state_dict({name.removeprefix("prior."): tensor for name, tensor in state.items()}, assign=True)
    return theirs.eval().requires_grad_(False)
