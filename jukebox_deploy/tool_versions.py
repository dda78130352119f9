"""Versions of the installed packages, for the records of runs."""

from __future__ import annotations

import importlib.metadata


def tool_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those of the given packages that are installed, by package name."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
