"""Which GPUs a machine has, by its driver or by PyTorch."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from jukebox_deploy.engines.installed_gpus import Gpu, installed_gpus


def pretend_smi(monkeypatch, folder, code):
    """The only program is an `nvidia-smi` that runs some code."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_gpus_are_those_that_the_driver_lists(monkeypatch, tmp_path):
    listed = "NVIDIA L4, 23034, 8.9, 550.54.15\\nNVIDIA GB10, [N/A], 12.1, 580.95.05\\n"
    pretend_smi(monkeypatch, tmp_path, f'test "$2" = --format=csv,noheader,nounits && printf "{listed}"')
    assert installed_gpus() == (
        Gpu("NVIDIA L4", 23034 << 20, "8.9", "550.54.15"),
        Gpu("NVIDIA GB10", None, "12.1", "580.95.05"),
    )


def test_a_program_without_a_driver_lists_none(monkeypatch, tmp_path):
    pretend_smi(monkeypatch, tmp_path, "echo NVIDIA-SMI has failed, a, b, c; exit 9")
    assert installed_gpus() == ()


def test_without_the_program_pytorch_is_asked(monkeypatch, tmp_path):
    import torch

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card = SimpleNamespace(name="NVIDIA L4", total_memory=5, major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    assert installed_gpus() == (Gpu("NVIDIA L4", 5, "8.9", None),)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert installed_gpus() == ()


def test_without_both_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert installed_gpus() == ()
