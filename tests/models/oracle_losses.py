"""The losses that the original implementation computed, and how ours are compared with them."""

import json

import pytest

from jukebox_deploy.models.losses import Bandwidths, LossSettings

WAVEFORM = {
    "l1": {"l1": 1.0, "l2": 0.0, "linf": 0.0},
    "l2": {"l1": 0.0, "l2": 1.0, "linf": 0.0},
    "linf": {"l1": 0.0, "l2": 0.0, "linf": 1.0},
}
BANDWIDTHS = Bandwidths(l1=0.11, l2=0.037, spectral=613.0)


def loss_settings(golden, kind=None, relative=False):
    """The settings that the original's hyper-parameters describe."""
    given = json.loads(str(golden["cfg"]))
    mixed = {name: given[f"lmix_{name}"] for name in ("l1", "l2", "linf")}
    return LossSettings(
        **WAVEFORM.get(kind or given["loss_fn"], mixed),
        linf_samples=given["linf_k"],
        spectral=given["spectral"],
        spectral_convergence=relative,
        multispectral=given["multispectral"],
        commit=given["commit"],
    )


def check_report(report, golden, prefix):
    """Every part of a report against the original's metrics."""
    expected = {
        "loss": report.total,
        "recons_loss": sum(report.reconstruction),
        "spectral_loss": sum(report.spectral),
        "multispectral_loss": sum(report.multispectral),
        "commit_loss": report.commit,
        "l1_loss": report.l1,
        "l2_loss": report.l2,
        "linf_loss": report.linf,
        "spectral_convergence": report.spectral_convergence,
    }
    for level in range(len(report.reconstruction)):
        expected[f"recons_loss_l{level + 1}"] = report.reconstruction[level]
        expected[f"spectral_loss_l{level + 1}"] = report.spectral[level]
        expected[f"multispectral_loss_l{level + 1}"] = report.multispectral[level]
    for name, value in expected.items():
        assert value.item() == pytest.approx(float(golden[f"{prefix}/{name}"]), rel=1e-5), name
