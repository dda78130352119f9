"""The VQ-VAE's training losses against the original."""

import pytest
import torch

from jukebox_deploy.errors import AudioError, ConfigError
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.models.losses import (
    LossSettings,
    linf_loss,
    multispectral_distance,
    spectral_convergence,
    spectral_distance,
    vqvae_loss,
)
from jukebox_deploy.models.vqvae import Reconstruction
from tests.models.oracle_losses import BANDWIDTHS, check_report, loss_settings
from tests.models.oracle_names import audio, load_golden, our_state_dict, relative_error, vqvae_config


@pytest.mark.parametrize("name", ["vqvae_3level.npz", "vqvae_small_2level.npz"])
@torch.no_grad()
def test_every_loss_matches_the_original(name):
    golden = load_golden(name)
    model = build_vqvae(vqvae_config(golden))
    model.load_state_dict(our_state_dict(golden))
    target = audio(golden, "in/x")
    reconstruction = model(target)
    prefixes = {key.rsplit("/", 1)[0] for key in golden if key.startswith("out/eval_") and "/" in key[4:]}
    assert len(prefixes) >= 4
    for prefix in prefixes:
        kind, relative = prefix.removeprefix("out/eval_").split("_")
        settings = loss_settings(golden, kind, relative == "sc")
        check_report(vqvae_loss(target, reconstruction, settings, BANDWIDTHS), golden, prefix)


def test_spectral_terms_match_the_original():
    golden = load_golden("vqvae_3level.npz")
    target, output = audio(golden, "in/spec_a"), audio(golden, "in/spec_b")
    assert relative_error(spectral_distance(target, output), golden["out/spectral_loss"]) < 1e-5
    assert relative_error(multispectral_distance(target, output), golden["out/multispectral_loss"]) < 1e-5
    assert relative_error(spectral_convergence(target, output), golden["out/spectral_convergence"]) < 1e-5


def test_the_spectral_weight_counts():
    golden = load_golden("vqvae_small_2level.npz")
    model = build_vqvae(vqvae_config(golden))
    target = audio(golden, "in/x")
    with torch.no_grad():
        reconstruction = model(target)
    plain = vqvae_loss(target, reconstruction, LossSettings(), BANDWIDTHS)
    weighted = vqvae_loss(target, reconstruction, LossSettings(spectral=0.5), BANDWIDTHS)
    assert float(weighted.total - plain.total) == pytest.approx(0.5 * float(sum(plain.spectral)), rel=1e-4)


def test_waveform_terms_can_count_less_at_some_levels():
    golden = load_golden("vqvae_small_2level.npz")
    target = audio(golden, "in/x")
    with torch.no_grad():
        reconstruction = build_vqvae(vqvae_config(golden))(target)
    plain = vqvae_loss(target, reconstruction, LossSettings(), BANDWIDTHS)
    less = vqvae_loss(target, reconstruction, LossSettings(waveform=(1.0, 0.25)), BANDWIDTHS)
    assert float(plain.total - less.total) == pytest.approx(0.75 * float(plain.reconstruction[1]), rel=1e-4)
    first = vqvae_loss(target, reconstruction, LossSettings(waveform=(0.5,)), BANDWIDTHS)
    assert float(plain.total - first.total) == pytest.approx(0.5 * float(plain.reconstruction[0]), rel=1e-4)


def test_a_silent_target_has_no_convergence_and_finite_gradients():
    output = torch.zeros(1, 1, 4096, requires_grad=True)
    value = spectral_convergence(torch.zeros(1, 1, 4096), output).sum()
    value.backward()
    assert value.item() == 0.0
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


class TestTermsWithoutWeight:
    """They are reported where they can be, and cost no gradients and no errors."""

    @staticmethod
    def loss(samples, **weights):
        torch.manual_seed(0)
        outputs = tuple(torch.randn(1, 1, samples, requires_grad=True) for _ in range(2))
        reconstruction = Reconstruction((0, 1), outputs, (torch.tensor(0.5), torch.tensor(0.5)))
        return vqvae_loss(torch.randn(1, 1, samples), reconstruction, LossSettings(**weights), BANDWIDTHS), outputs

    def test_of_short_audio_what_cannot_be_told_is_left_out(self):
        report, _ = self.loss(1500, linf=0.0)
        assert report.linf is None
        assert report.spectral_convergence is not None
        assert len(report.spectral) == len(report.multispectral) == 2
        report, outputs = self.loss(1000, linf=0.0, multispectral=0.0)
        assert (report.spectral, report.multispectral, report.spectral_convergence) == ((), (), None)
        report.total.backward()
        assert torch.isfinite(outputs[0].grad).all()

    def test_they_have_no_gradients(self):
        report, _ = self.loss(4096, linf=0.0, multispectral=0.0)
        assert report.linf is not None
        assert not any(term.requires_grad for term in (*report.spectral, *report.multispectral, report.linf))
        report, _ = self.loss(4096, spectral=0.5)
        assert all(term.requires_grad for term in (*report.spectral, *report.multispectral))

    @pytest.mark.parametrize(("samples", "weights"), [(1500, {}), (1000, {"linf": 0.0})])
    def test_terms_with_weight_need_their_samples(self, samples, weights):
        with pytest.raises(AudioError, match="samples"):
            self.loss(samples, **weights)


def test_short_audio_and_empty_settings_are_refused():
    short = torch.zeros(1, 1, 1024)
    with pytest.raises(AudioError, match="more than 1024 samples, found 1024"):
        spectral_distance(short, short)
    with pytest.raises(AudioError, match="2048 samples per example, found 1024"):
        linf_loss(short, short, BANDWIDTHS, 2048)
    with pytest.raises(ConfigError, match="at least one"):
        LossSettings(l1=0.0, l2=0.0, linf=0.0)
    with pytest.raises(ConfigError, match="expected 0 or more"):
        LossSettings(waveform=(1.0, -1.0))
