"""Where `transformers` does not do what the specification asks of a model, and that ours does (16.4).

What it does otherwise with labels is in `tests/labels/test_transformers_labels.py`, with a whole song
in `tests/runtime/test_transformers_songs.py`. What is equal is in `test_against_transformers.py`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern
from jukebox_deploy.config import LyricsConfig, PriorConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.prior import Window
from jukebox_deploy.models.prior_loss import PriorBatch, prior_loss
from jukebox_deploy.runtime.windows import WindowGeometry, partial_window
from tests.models.cached_windows import open_session, run_windows
from tests.models.oracle_names import audio, load_golden, our_state_dict, relative_error, vqvae_config
from tests.models.transformers_pairs import (
    CODES,
    ENCODER,
    ENCODER_STACK,
    FACTORED,
    LYRICS,
    TIMED,
    TOTAL,
    VOCABULARY,
    WINDOW,
    Pair,
    assert_close,
    make_pair,
    pair,
    random_codes,
    stack,
    their_vqvae,
    transformers,
)


@pytest.mark.parametrize("name", ["vqvae_3level.npz", "vqvae_small_2level.npz"])
@torch.no_grad()
def test_every_level_of_a_vqvae_has_its_own_codebook(name):
    """A level's audio is that of its codes in its own codebook (specification 16.4, point 1).

    Theirs takes the codebooks in reverse order, so only a level in the middle comes out right. Its
    encoding and decoding are right; the codes and the loss to expect are the original's.
    """
    golden = load_golden(name)
    config = vqvae_config(golden)
    ours = build_vqvae(config)
    ours.load_state_dict(our_state_dict(golden))
    found = ours(audio(golden, "in/x"))
    theirs = their_vqvae(config, ours)
    their_audio, their_loss = theirs(torch.from_numpy(golden["in/x"]))
    for level in range(config.levels):
        codes = torch.from_numpy(golden[f"out/z_l{level}"])
        expected = theirs.decode([codes], start_level=level).numpy()
        assert relative_error(found.audio[level].transpose(1, 2), expected) < 1e-5
        their_error = relative_error(their_audio[level], expected)
        assert their_error < 1e-5 if 2 * level == config.levels - 1 else their_error > 0.1
    commit = float(golden["out/eval_l2_spec/commit_loss"])
    assert float(torch.stack(found.commit_losses).sum()) == pytest.approx(commit, rel=1e-5)
    assert float(their_loss) / theirs.commit > 1.5 * commit


def test_upsamplers_see_the_upper_codes_of_their_window():
    """An upsampler is conditioned on exactly the upper codes of its window (specification 16.4, point 2).

    Theirs cuts the window's codes out and then passes all of them.
    """
    given = pair("upsampler")
    whole = random_codes(WINDOW // 2)  # two windows
    start, end = WINDOW // 2, WINDOW + WINDOW // 2
    (passed,) = given.theirs.get_music_tokens_conds([whole, random_codes()], start, end)
    assert passed.shape == whole.shape
    window = whole[:, start // 4 : end // 4]
    ours = given.batch(random_codes(), window).conditioning
    assert ours is not None
    torch.testing.assert_close(ours, given.theirs.embed_tokens([window]), atol=1e-5, rtol=1e-5)
    rows = given.theirs.embed_tokens([passed])
    for first in (0, start):  # the rows they would use, and those that belong to the window
        assert not torch.allclose(rows[:, first : first + WINDOW], ours, atol=1e-2)


def test_partial_windows_have_the_length_asked_for():
    """21 codes and 29 more that are asked for make 50 (specification 16.4, point 3).

    Theirs gives 64: it draws the 29, but then counts 43 new codes and takes some of the old ones again.
    """
    given = pair("factored")
    present, batch = random_codes()[:, :21], given.batch(random_codes(), None)
    model = SimpleNamespace(priors=[given.theirs], total_length=TOTAL)
    model.split_batch = partial(transformers.JukeboxModel.split_batch, model)
    model.sample_single_window = partial(transformers.JukeboxModel.sample_single_window, model)
    (theirs,) = transformers.JukeboxModel.sample_partial_window(
        model, [present], given.row(), 0, {"temp": 1.0, "top_k": 1}, 0, 29, 1
    )
    assert theirs.shape[1] == 64
    window = partial_window(WindowGeometry.of(given.config), 21, 29)
    assert (window.start, window.known, window.end) == (0, 21, 50)
    ours = given.greedy(batch._replace(tokens=present), window.known, window.end)
    np.testing.assert_array_equal(ours[21:], theirs[0, -29:])
    np.testing.assert_array_equal(theirs[0, 21:35], present[0, 7:])


def test_songs_of_a_batch_keep_their_own_lyrics():
    """Every song sees its own lyrics; theirs gives all the first one's (specification 16.4, point 5)."""
    given = pair("prime_and_dense")
    songs = [given.song(item) for item in range(2)]
    full = torch.tensor([[TOTAL, 0, 0, s.artist, *s.genres, *s.lyric_tokens] for s in songs])
    theirs = given.theirs.get_metadata(full, 0, TOTAL, 0)[:, 5:]
    ours = np.stack([given.window(item)["lyric_tokens"] for item in range(2)])
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(theirs[1], theirs[0])
    first = songs[1].lyric_tokens.index(ours[1][0])
    np.testing.assert_array_equal(ours[1], songs[1].lyric_tokens[first : first + LYRICS])
    assert (ours[1] != ours[0]).any()


def test_losses_without_lyrics_can_be_had():
    """Without lyrics the loss is that of the music alone; theirs raises (specification 16.4, point 6)."""
    given = pair("factored")
    with pytest.raises(AttributeError):
        given.theirs.forward_tokens(random_codes(), [], given.row())
    batch = given.batch(random_codes(), None)
    assert batch.start is not None
    bits, _ = given.theirs.prior(batch.tokens, batch.conditioning, batch.start[:, None], None)
    assert float(prior_loss(given.ours, batch).total) == pytest.approx(float(bits), rel=1e-5)


def test_losses_of_several_songs_with_a_lyric_encoder_can_be_had():
    """The loss of a batch is the mean of its songs'; theirs raises, as the original (specification 16.4, point 7)."""
    given = pair("late_cross")
    codes = random_codes(batch=2)
    songs = [given.batch(codes[i : i + 1], None, item=i) for i in range(2)]
    with pytest.raises(RuntimeError):
        given.theirs.forward_tokens(codes, [], torch.cat([given.row(0), given.row(1)]))
    together = PriorBatch(*(torch.cat(parts) for parts in zip(*songs, strict=True)))
    losses = [float(prior_loss(given.ours, song, 0.4).total) for song in songs]
    assert float(prior_loss(given.ours, together, 0.4).total) == pytest.approx(np.mean(losses), rel=1e-5)
    theirs, _ = given.theirs.forward_tokens(codes[:1], [], given.row())
    assert losses[0] == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize(("name", "layer"), [("late_cross", 18), ("prime_and_dense", 15)])
def test_attention_weights_are_those_of_the_softmax(name, layer):
    """Attention weights come out of the softmax; theirs are the projection's matrix (specification 16.4, point 8)."""
    given = pair(name)
    batch = given.batch(random_codes(), None)
    recorded = given.theirs.forward_tokens(random_codes(), [], given.row(), get_attn_weights={layer})
    assert any(recorded[0] is parameter for parameter in given.theirs.parameters())
    lyrics = torch.from_numpy(given.window()["lyric_tokens"])[None]
    weights = given.ours.lyric_attention(batch.tokens, batch.start, batch.conditioning, lyrics, layer)
    assert weights.shape == (1, 2, WINDOW, LYRICS)
    assert (weights >= 0).all()
    if name == "late_cross":
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 2, WINDOW))
    else:  # some of it goes to the first music positions
        assert ((weights.sum(dim=-1) > 0) & (weights.sum(dim=-1) <= 1 + 1e-5)).all()


CYCLE = ("block_attn", "transpose_block_attn", "prev_block_attn")


@pytest.mark.parametrize(
    ("order", "layers"),
    [
        (AttentionOrder.DENSE, ("dense_attn",) * 3),  # order 0
        (AttentionOrder.FACTORED_CROSS_EVERY_10, (*CYCLE * 3, "cross_attention") * 2),  # order 8
    ],
)
def test_orders_0_and_8_are_known(order, layers, monkeypatch):
    """Order 0 is all dense, order 8 nine factored layers and a cross layer in turn (specification 16.4, point 9).

    Theirs has neither. Given the list of layers, it agrees with ours.
    """
    patterns = transformers.models.deprecated.jukebox.configuration_jukebox.ATTENTION_PATTERNS
    assert layers not in [tuple(pattern(layer) for layer in range(len(layers))) for pattern in patterns.values()]
    monkeypatch.setitem(patterns, "given", lambda layer: layers[layer])
    theirs = {"num_layers": len(layers), "attention_pattern": "given", "merged_decoder": True}
    ours = stack(len(layers), order, cross=LYRICS)
    lyrics = None
    if "cross_attention" in layers:
        theirs |= {"nb_relevant_lyric_tokens": LYRICS, "encoder_config": ENCODER}
        lyrics = LyricsConfig(LYRICS, VOCABULARY, encoder=ENCODER_STACK)
    config, codes = PriorConfig(2, WINDOW, CODES, ours, TIMED, lyrics, merged_decoder=True), random_codes()
    given = make_pair(config, theirs)
    assert_close(given.logits(codes), given.their_logits(codes))
    np.testing.assert_array_equal(given.greedy(given.batch(codes, None), 37), given.their_greedy(codes[:, :37]))


def test_their_dense_pattern_cannot_be_built():
    """A dense prior can be built; theirs has a name for it and raises (specification 16.4, point 9)."""
    config = PriorConfig(2, WINDOW, CODES, stack(3, AttentionOrder.DENSE), TIMED)
    layers = build_prior(config).core.transformer.typed_layers()
    assert [layer.attention.pattern for layer in layers] == [AttentionPattern.DENSE] * 3
    with pytest.raises(KeyError, match="dense_attention"):
        make_pair(config, {"num_layers": 3, "attention_pattern": "full_dense_attention"})


def test_priors_without_labels_can_be_sampled_from_nothing():
    """A prior without labels begins with its learned start token (specification 16.4, point 10).

    Theirs raises. Its teacher-forced logits, which are right, tell that our codes are the most likely ones.
    """
    config = PriorConfig(2, WINDOW, CODES, stack(3, AttentionOrder.FACTORED), merged_decoder=True)
    theirs = {"num_layers": 3, "attention_pattern": FACTORED, "merged_decoder": True, "metadata_conditioning": False}
    given = make_pair(config, theirs)
    with pytest.raises(AttributeError, match="device"):
        given.theirs.sample(1)
    codes = given.greedy(given.batch(random_codes()[:, :0], None), known=0)
    assert len(set(codes.tolist())) > 5
    np.testing.assert_array_equal(codes, given.their_logits(torch.from_numpy(codes)[None])[0].argmax(dim=-1))


@pytest.fixture
def half() -> Pair:
    """A prior whose stack works in half precision, and theirs, cast the way it is done there."""
    given = pair("prime_and_dense")
    ours = build_prior(given.config, Precision.FP16).eval().requires_grad_(False)
    ours.load_state_dict(given.ours.state_dict())
    return Pair(given.config, ours, deepcopy(given.theirs).half())


def test_parameters_outside_the_projections_of_the_stack_are_never_half(half):
    """Embeddings, norms and output matrix stay in float32; theirs are half (specification 16.4, point 11)."""
    for name, parameter in half.ours.named_parameters():
        projection = ".attention." in name or ".mlp." in name
        assert parameter.dtype is (torch.float16 if projection else torch.float32), name
    assert {parameter.dtype for parameter in half.theirs.parameters()} == {torch.float16}


def test_the_stack_of_a_half_precision_prior_gets_sums_in_float32_rounded_once(half):
    """Tokens, positions and conditioning are added up before they are rounded (specification 16.4, point 11).

    The rows to expect are made of the parameters of `transformers` in float32.
    """
    theirs, codes = pair("prime_and_dense").theirs, random_codes()
    conditioning, start, lyrics = theirs.get_cond(None, half.row())
    tokens, conditioning = theirs.prior_preprocess([lyrics, codes.clone()], [None, conditioning])
    embedded = torch.cat([start, theirs.prior.embed_tokens(tokens[:, :-1])], dim=1)
    expected = embedded + theirs.prior.pos_emb() + conditioning
    seen: list[torch.Tensor] = []
    for stack_of in (half.ours.core.transformer, half.theirs.prior.transformer):
        stack_of.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    half.logits(codes)
    half.their_logits(codes)
    ours, others = seen
    assert torch.equal(ours, expected)
    assert others.dtype is torch.float16
    assert not torch.equal(others, expected.half())
    position = torch.tensor([LYRICS + 30])
    window = Window(tokens, position, position, start[:, 0], conditioning, {}, {})
    assert torch.equal(half.ours.enter(window, 1).rows, expected[:, LYRICS + 30].half())


def test_logits_of_a_half_precision_prior_are_computed_in_float32(half):
    """The stack's result is multiplied by the output matrix in float32 (specification 16.4, point 11)."""
    codes, outputs = random_codes(), list[torch.Tensor]()
    half.ours.core.transformer.register_forward_hook(lambda *found: outputs.append(found[2]))
    batch, logits = half.batch(codes, None), half.logits(codes)
    assert batch.conditioning is not None
    matrix = pair("prime_and_dense").theirs.prior.fc_proj_out.weight
    assert torch.equal(outputs[0], outputs[0].half().float())
    assert_close(logits, ((outputs[0] + batch.conditioning).double() @ matrix.double().T).float())
    assert half.their_logits(codes).dtype is torch.float16
    session = open_session(half.config, half.ours, 1, Precision.FP16)
    (run,) = run_windows(session, half.config, [half.slot_window(batch, WINDOW - 8, WINDOW)])
    steps = run.logits_of(range(LYRICS + WINDOW - 8, LYRICS + WINDOW))
    # Hardly any number that float32 arithmetic gives is one of half precision.
    assert (steps == steps.astype(np.float16)).mean() < 0.05
