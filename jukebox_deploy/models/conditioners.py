"""Conditioners of the priors: labels and upper codes become rows that are added to the input of the stack.

Source: specification section 9; paper sections 4.1 and 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jukebox_deploy.errors import LabelError
from jukebox_deploy.models.convolution import DecoderBlock


class UpsamplerConditioner(nn.Module):
    """Network that turns the codes of the level above into one conditioning row per code of this level.

    Its input must be exactly the codes of the window: it pads with zeros at both ends, and since its receptive field is
    longer than a window, every row depends on where the padding begins.
    """

    def __init__(self, codebook_size: int, width: int, upsampler: DecoderBlock, init_scale: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, width)
        self.upsampler = upsampler
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02 * init_scale)

    def forward(self, upper_codes: Tensor) -> Tensor:
        """Codes `[B, n / upsampling]` of the level above -> rows `[B, n, W]`."""
        upsampled = self.upsampler(self.embedding(upper_codes).transpose(1, 2))
        rows: Tensor = self.norm(upsampled.transpose(1, 2).to(self.norm.weight.dtype))
        return rows


class LabelConditioner(nn.Module):
    """Embeddings that turn artist and genres into the start row, and timing bins into a row per position."""

    def __init__(
        self, artists: int, genres: int, width: int, timing_bins: int | None = None, init_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.artist = nn.Embedding(artists, width)
        self.genre = nn.Embedding(genres, width)
        self.has_timing = timing_bins is not None
        if timing_bins is not None:
            self.total = nn.Embedding(timing_bins, width)
            self.absolute = nn.Embedding(timing_bins, width)
            self.relative = nn.Embedding(timing_bins, width)
        for table in self.children():
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.01 * init_scale)

    def forward(
        self,
        artist: Tensor,
        genres: Tensor,
        total_bin: Tensor | None = None,
        absolute_bins: Tensor | None = None,
        relative_bins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Labels of a window -> start row `[B, W]` and timing rows `[B, n, W]` (`None` without timing).

        `artist` is `[B]`; `genres` is `[B, G]`, -1 where empty; `total_bin` is `[B]`; `absolute_bins` and
        `relative_bins` are `[B, n]`. Raises `LabelError` unless bins are given exactly if the model has timing.
        """
        bins = (total_bin, absolute_bins, relative_bins)
        if any((item is None) == self.has_timing for item in bins):
            expected = "all three timing bins" if self.has_timing else "no timing bins"
            raise LabelError(f"labels: this model takes {expected}; check that the labels are for the model's level.")
        return self._start(artist, genres), self._timing(*bins) if self.has_timing else None

    def _start(self, artist: Tensor, genres: Tensor) -> Tensor:
        present = genres >= 0
        rows = self.genre(torch.where(present, genres, 0))
        start: Tensor = self.artist(artist) + (rows * present.unsqueeze(-1).to(rows.dtype)).sum(dim=1)
        return start

    def _timing(self, total_bin: Tensor | None, absolute_bins: Tensor | None, relative_bins: Tensor | None) -> Tensor:
        rows: Tensor = self.total(total_bin).unsqueeze(1) + self.absolute(absolute_bins) + self.relative(relative_bins)
        return rows
