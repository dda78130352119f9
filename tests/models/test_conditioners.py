"""Label and upsampler conditioners against the original and against transformers."""

import numpy as np
import pytest
import torch

from jukebox_deploy.config import ConditionerConfig, LabelConfig, LabelRules, TimingConfig
from jukebox_deploy.errors import LabelError
from jukebox_deploy.models.builders import build_conditioner, build_label_conditioner
from jukebox_deploy.presets import PRIOR_1B_LYRICS, PRIOR_5B, RELEASED_UPSAMPLERS
from tests.models.oracle_names import load_golden, our_state_dict, relative_error

WIDTH = 64
LABELS = LabelConfig(LabelRules.WORDS, artists=20, genres=12, genre_slots=5)
TIMED_LABELS = LabelConfig(LabelRules.WORDS, 20, 12, 5, TimingConfig(bins=16, min_duration=0.1, max_duration=2.0))
CONDITIONER = ConditionerConfig(width=32, depth=4, stages=2, stride=2, dilation_cycle=2, scale_residual=True)


@pytest.fixture(scope="module")
def golden():
    return load_golden("conditioners.npz")


def load(module, golden, part, name):
    weights = our_state_dict(golden, f"{part}/sd/")
    module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")})
    return module.eval()


def timing_bins(rows, window, timing, sample_rate=44_100):
    """Total, absolute and relative bins of label rows, in float32 (specification 9.2)."""
    f = np.float32
    low, high, bins = f(timing.min_duration * sample_rate), f(timing.max_duration * sample_rate), f(timing.bins)
    total, start, end = rows[:, :1].astype(f), rows[:, 1:2].astype(f), (rows[:, 1:2] + rows[:, 2:3]).astype(f)
    steps = (np.arange(window, dtype=f) / f(window))[None]
    first, last = start / total, np.clip(end / total, f(0), f(1))
    values = (
        (total[:, 0] - low) / (high - low),
        (start + (end - start) * steps) / high,
        first + (last - first) * steps,
    )
    return tuple(torch.from_numpy(np.floor(bins * value).astype(np.int64)) for value in values)


def count_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("upsampler", RELEASED_UPSAMPLERS)
def test_conditioners_of_the_released_upsamplers_have_their_size(upsampler):
    with torch.device("meta"):
        assert count_parameters(build_conditioner(upsampler.conditioner, 2048, 1920)) == 156_180_096


@pytest.mark.parametrize(
    ("prior", "size"),
    [(RELEASED_UPSAMPLERS[0], 8_123_520), (PRIOR_5B, 22_152_000), (PRIOR_1B_LYRICS, 17_805_312)],
)
def test_label_tables_of_the_released_priors_have_their_size(prior, size):
    with torch.device("meta"):
        assert count_parameters(build_label_conditioner(prior.labels, prior.transformer.width)) == size


@torch.no_grad()
def test_upsampler_conditioner_matches_the_original(golden):
    model = load(build_conditioner(CONDITIONER, 64, WIDTH), golden, "upsampler", "conditioner")
    rows = model(torch.from_numpy(golden["upsampler/in/z_cond"]))
    assert rows.shape == (2, 128, WIDTH)
    assert relative_error(rows[:, ::2], golden["upsampler/out/x_cond_even"]) < 1e-5


@torch.no_grad()
def test_labels_without_timing_match_the_original(golden):
    model = load(build_label_conditioner(LABELS, WIDTH), golden, "upsampler", "labels")
    labels = torch.from_numpy(golden["upsampler/in/y"])
    start, timing = model(labels[:, 3], labels[:, 4:])
    assert relative_error(start, golden["upsampler/out/y_cond"][:, 0]) < 1e-5
    assert timing is None


@torch.no_grad()
def test_labels_with_timing_match_the_original(golden):
    model = load(build_label_conditioner(TIMED_LABELS, WIDTH), golden, "top", "labels")
    labels = golden["top/in/y"]
    bins = timing_bins(labels, 128, TIMED_LABELS.timing)
    start, timing = model(torch.from_numpy(labels[:, 3]), torch.from_numpy(labels[:, 4:]), *bins)
    assert relative_error(start, golden["top/out/y_cond"][:, 0]) < 1e-5
    assert timing.shape == (2, 128, WIDTH)
    assert relative_error(timing[:, ::2], golden["top/out/x_cond_even"]) < 1e-5


def test_empty_genre_slots_add_nothing():
    model = build_label_conditioner(LABELS, WIDTH)
    artist = torch.tensor([4])
    none, _ = model(artist, torch.full((1, 5), -1))
    torch.testing.assert_close(none, model.artist(artist))
    one, _ = model(artist, torch.tensor([[-1, 0, -1, -1, -1]]))
    torch.testing.assert_close(one, model.artist(artist) + model.genre.weight[:1])


def test_bins_that_do_not_fit_the_model_are_refused():
    labels = torch.zeros(1, dtype=torch.long), torch.zeros(1, 5, dtype=torch.long)
    bins = torch.zeros(1, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)
    with pytest.raises(LabelError, match="all three timing bins"):
        build_label_conditioner(TIMED_LABELS, WIDTH)(*labels, *bins[:2])
    with pytest.raises(LabelError, match="no timing bins"):
        build_label_conditioner(LABELS, WIDTH)(*labels, *bins)


def test_tables_start_with_the_specified_spread():
    torch.manual_seed(0)
    tables = build_label_conditioner(LabelConfig(LabelRules.NAMES, 500, 500, 1), 256, init_scale=0.4)
    assert tables.artist.weight.std().item() == pytest.approx(0.004, rel=0.02)
    assert tables.genre.weight.std().item() == pytest.approx(0.004, rel=0.02)
    conditioner = build_conditioner(CONDITIONER, 2048, 64, init_scale=0.4)
    assert conditioner.embedding.weight.std().item() == pytest.approx(0.008, rel=0.02)


@torch.no_grad()
def test_the_window_s_edge_matters():
    """The conditioner sees so far that a slice of the whole song's rows is not the window's rows."""
    model = build_conditioner(CONDITIONER, 64, WIDTH).eval()
    codes = torch.randint(64, (1, 96))
    window, song = model(codes[:, 32:64]), model(codes)[:, 128:256]
    assert not torch.allclose(window, song, atol=1e-3)


@pytest.mark.parametrize("scale_residual", [False, True])
@torch.no_grad()
def test_upsampler_conditioner_agrees_with_transformers(scale_residual):
    pytest.importorskip("transformers")
    from transformers.models.deprecated.jukebox.configuration_jukebox import JukeboxPriorConfig
    from transformers.models.deprecated.jukebox.modeling_jukebox import JukeboxMusicTokenConditioner

    config = ConditionerConfig(width=24, depth=5, stages=2, stride=2, dilation_cycle=3, scale_residual=scale_residual)
    theirs = JukeboxMusicTokenConditioner(
        JukeboxPriorConfig(
            music_vocab_size=64,
            hidden_size=WIDTH,
            res_conv_width=24,
            res_conv_depth=5,
            res_downs_t=[3, 2],
            res_strides_t=[2, 2],
            res_dilation_growth_rate=3,
            res_dilation_cycle=3,
            conv_res_scale=scale_residual,
        ),
        level=1,
    ).eval()
    ours = build_conditioner(config, 64, WIDTH).eval()
    ours.load_state_dict({our_conditioner_name(name): value for name, value in theirs.state_dict().items()})
    codes = torch.randint(64, (2, 16))
    assert relative_error(ours(codes), theirs(codes).numpy()) < 1e-6


def our_conditioner_name(theirs):
    """Our name of a parameter of transformers' conditioner (specification 16.2)."""
    name = theirs.replace("embed_tokens", "embedding").replace("layer_norm", "norm").replace("proj_in", "input")
    parts = name.split(".")
    if parts[1] != "upsample_block":
        return name
    stage, half = divmod(int(parts[2]), 2)
    if half:
        return f"upsampler.stages.{stage}.convolution.{parts[3]}"
    which = {"conv1d_1": "inner", "conv1d_2": "outer"}[parts[5]]
    return f"upsampler.stages.{stage}.residual.blocks.{parts[4]}.{which}.{parts[6]}"


@torch.no_grad()
def test_exported_conditioner_runs_with_other_batches(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")

    class Condition(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.labels = build_label_conditioner(TIMED_LABELS, WIDTH)
            self.conditioner = build_conditioner(CONDITIONER, 64, WIDTH)

        def forward(self, artist, genres, total_bin, absolute_bins, relative_bins, upper_codes):
            start, timing = self.labels(artist, genres, total_bin, absolute_bins, relative_bins)
            return start, timing + self.conditioner(upper_codes)

    def inputs(batch):
        bins = [torch.randint(16, (batch, 64)) for _ in range(2)]
        return (
            torch.randint(20, (batch,)),
            torch.randint(-1, 12, (batch, 5)),
            torch.randint(16, (batch,)),
            *bins,
            torch.randint(64, (batch, 16)),
        )

    model = Condition().eval()
    path = tmp_path / "condition.onnx"
    batch = torch.export.Dim("B", min=1, max=16)
    torch.onnx.export(
        model, inputs(2), path, dynamo=True, opset_version=24, dynamic_shapes=({0: batch},) * 6, verbose=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in (1, 3):
        given = inputs(size)
        names = [item.name for item in session.get_inputs()]
        found = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})
        for output, expected in zip(found, model(*given), strict=True):
            assert relative_error(expected, output) < 1e-5
