"""A verification report as an HTML page: checks, errors, and where a difference starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jukebox_deploy.benchmarks.drawing.markup import Markup, tag
from jukebox_deploy.benchmarks.drawing.page import facts, page, table
from jukebox_deploy.files import write_text_atomic

if TYPE_CHECKING:
    from jukebox_deploy.jobs.verification.report import Check, VerifyReport

_HEADINGS = ("graph", "check", "at", "found", "limit", "outcome")


def write_page(path: Path, report: VerifyReport) -> None:
    """Write the page atomically."""
    write_text_atomic(path, _html(report))


def _html(report: VerifyReport) -> str:
    """Return a table of all checks and, for failed ones, every tensor beyond its tolerance."""
    checks = table("Checks", _HEADINGS, map(_cells, report.checks))
    title = f"Verification of {Path(report.bundle).name}"
    return page(title, facts(_facts(report)), tag("h2", "Checks"), checks, *_failures(report))


def _facts(report: VerifyReport) -> dict[str, str]:
    return {
        "made for": f"{report.target}, {report.precision}",
        "checkpoint": report.checkpoint,
        "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
        + ("" if report.ran_engines else "; nothing in the bundle ran, so it is not verified"),
        "files": f"{len(report.files)}, every hash as the manifest says",
        "versions": ", ".join(f"{tool} {version}" for tool, version in report.tools.items()),
    }


def _cells(check: Check) -> tuple[str, ...]:
    return (check.graph, check.kind, check.where, *check.finding(), check.outcome)


def _failures(report: VerifyReport) -> list[Markup]:
    failed = [check for check in report.checks if check.failed]
    if not failed:
        return []
    return [tag("h2", "Failures"), *(tag("pre", check.describe_failure()) for check in failed)]
