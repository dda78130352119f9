"""What half precision may lower in training, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jukebox_deploy.models.bottleneck import draw_candidates, squared_distances
from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings, vqvae_loss
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.prior_loss import PriorBatch, PriorLoss, prior_loss
from jukebox_deploy.training.precision import TrainingPrecision, autocast
from tests.models.codebook_steps import codebook_step
from tests.models.oracle_names import load_golden
from tests.models.oracle_priors import golden_config, our_weights, window_arrays
from tests.training.small_runs import SAMPLES, VQVAE, audio_batch

HALF = [TrainingPrecision.BF16, TrainingPrecision.FP16]
CPU = torch.device("cpu")


class DtypesSeen(TorchDispatchMode):
    """Records the dtypes of the results of every operator, by its name and the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.results: set[tuple[str, int, torch.dtype]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple) else result
        if isinstance(first, Tensor) and first.dim():
            self.results.add((function.overloadpacket.__name__, first.shape[-1], first.dtype))
        return result

    def dtypes(self, operator: str, last: int | None = None) -> set[torch.dtype]:
        return {dtype for name, size, dtype in self.results if name == operator and last in (None, size)}


def lyric_prior() -> tuple[Prior, PriorBatch]:
    """A prior with a lyric encoder and the original's weights, and a batch."""
    golden = load_golden("prior_order8_sep_lyrics.npz")
    config = golden_config(golden)
    prior = build_prior(config)
    prior.load_state_dict(our_weights(golden, config))
    arrays = {name: torch.from_numpy(array) for name, array in window_arrays(golden, config).items()}
    lyric_tokens = arrays.pop("lyric_tokens")
    return prior, PriorBatch(torch.from_numpy(golden["in/z"]).long(), *prior.condition(arrays), lyric_tokens)


def loss_in(precision: TrainingPrecision, prior: Prior, batch: PriorBatch) -> PriorLoss:
    with autocast(precision, CPU):
        return prior_loss(prior, batch, 0.4)


@pytest.mark.parametrize("precision", HALF)
def test_the_loss_of_a_prior_is_that_of_float32_within_a_little(precision):
    prior, batch = lyric_prior()
    exact, lowered = (loss_in(p, prior, batch) for p in (TrainingPrecision.FP32, precision))
    assert exact.lyrics is not None
    assert lowered.lyrics is not None
    for mine, theirs in ((lowered.total, exact.total), (lowered.lyrics, exact.lyrics)):
        assert mine.item() == pytest.approx(theirs.item(), rel=5e-3)
        assert mine.item() != theirs.item()


def test_only_the_products_of_a_stack_are_lowered():
    prior, batch = lyric_prior()
    vocabulary, lyric_vocabulary = 64, 79
    with DtypesSeen() as seen:
        loss_in(TrainingPrecision.BF16, prior, batch).total.backward()
    assert torch.bfloat16 in seen.dtypes("mm")
    assert torch.bfloat16 in seen.dtypes("bmm")
    for operator in ("native_layer_norm", "_softmax", "_log_softmax", "embedding"):
        assert seen.dtypes(operator) == {torch.float32}, operator
    assert seen.dtypes("mm", lyric_vocabulary) == {torch.float32}
    assert seen.dtypes("_log_softmax", vocabulary) == {torch.float32}
    assert all(parameter.grad is None or parameter.grad.dtype == torch.float32 for parameter in prior.parameters())


def test_logits_are_products_in_float32():
    prior, _ = lyric_prior()
    hidden = torch.randn(2, 3, 64)
    with autocast(TrainingPrecision.BF16, CPU):
        lowered = prior.core.logits(hidden)
    assert torch.equal(lowered, prior.core.logits(hidden))


def test_the_residual_stream_is_not_lowered():
    prior, batch = lyric_prior()
    dtypes = []
    for layer in prior.core.transformer.layers:
        layer.register_forward_hook(lambda module, given, result: dtypes.append(result.dtype))
    loss_in(TrainingPrecision.BF16, prior, batch)
    assert dtypes == [torch.float32] * 10


def test_distances_to_codes_are_those_of_float32():
    rows, codes = torch.randn(50, 8), torch.randn(16, 8)
    exact = squared_distances(rows, codes)
    with autocast(TrainingPrecision.BF16, CPU):
        assert torch.equal(squared_distances(rows, codes), exact)


@pytest.mark.parametrize("precision", HALF)
def test_a_vqvae_is_lowered_in_its_convolutions_alone(precision):
    torch.manual_seed(0)
    model = build_vqvae(VQVAE)
    audio = torch.from_numpy(audio_batch(0, 2)["audio"])

    def step(precision: TrainingPrecision) -> tuple[float, Any, DtypesSeen]:
        draw = lambda rows, count: draw_candidates(rows, count, torch.Generator().manual_seed(1))  # noqa: E731
        with DtypesSeen() as seen, autocast(precision, CPU):
            result = codebook_step(model, audio, dict.fromkeys((0, 1)), draw)
            loss = vqvae_loss(audio, result.reconstruction, LossSettings(), Bandwidths(0.3, 0.1, 10.0))
        return loss.total.item(), result, seen

    exact, _, _ = step(TrainingPrecision.FP32)
    loss, result, seen = step(precision)
    assert loss == pytest.approx(exact, rel=1e-2)
    dtype = torch.bfloat16 if precision is TrainingPrecision.BF16 else torch.float16
    assert seen.dtypes("convolution", SAMPLES // 2) == {dtype}
    assert seen.dtypes("mm") == {torch.float32}  # of the distances
    assert all(output.dtype == torch.float32 for output in result.reconstruction.audio)
    assert all(state.codes.dtype == state.sums.dtype == torch.float32 for state in result.codebooks.values())
