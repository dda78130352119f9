"""Which build of PyTorch the environment gets."""

from __future__ import annotations

import pytest

from tools import install_torch

PLAIN = ["install", install_torch.REQUIREMENT]
FROM_CPU_INDEX = [*PLAIN, "--index-url", install_torch.CPU_INDEX, "--retries", "1", "--timeout", "30"]


@pytest.fixture
def machine(monkeypatch):
    """Run the script on a machine as described; returns its exit status and what it asked pip for."""

    def run(*, system="Linux", gpu=False, installed=None, offered="2.13.0", failing=()):
        calls = []

        def pip(*arguments):
            calls.append(list(arguments))
            return int(list(arguments) in failing)

        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr(install_torch, "_has_nvidia_gpu", lambda: gpu)
        monkeypatch.setattr(install_torch, "_installed_version", lambda: installed)
        monkeypatch.setattr(install_torch, "_offered_version", lambda: offered)
        monkeypatch.setattr(install_torch, "_pip", pip)
        return install_torch.main(), calls

    return run


def test_nothing_to_do_where_it_is_installed(machine):
    assert machine(installed="2.13.0") == (0, [])


def test_a_gpu_gets_the_cuda_build(machine):
    assert machine(gpu=True) == (0, [PLAIN])


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_have_no_cuda_in_the_plain_build(machine, system):
    assert machine(system=system) == (0, [PLAIN])


def test_a_mirror_that_offers_a_cpu_build_is_used(machine):
    assert machine(offered="2.13.0+cpu") == (0, [PLAIN])


@pytest.mark.parametrize("offered", ["2.13.0", ""])
def test_otherwise_the_cpu_index_is_asked(machine, offered, capsys):
    assert machine(offered=offered) == (0, [FROM_CPU_INDEX])
    assert install_torch.CPU_INDEX in capsys.readouterr().out


def test_without_that_index_the_large_build_is_announced(machine, capsys):
    assert machine(failing=[FROM_CPU_INDEX]) == (0, [FROM_CPU_INDEX, PLAIN])
    assert "several gigabytes" in capsys.readouterr().out


def test_a_failure_is_passed_on(machine):
    assert machine(failing=[FROM_CPU_INDEX, PLAIN])[0] == 1
