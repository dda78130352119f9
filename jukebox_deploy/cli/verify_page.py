"""A verification as a page: what was compared, how far off it is, and where a difference starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jukebox_deploy.benchmarks.markup import Markup, tag
from jukebox_deploy.benchmarks.report_style import STYLE
from jukebox_deploy.files import atomic_path

if TYPE_CHECKING:
    from jukebox_deploy.jobs.verification.report import Check, VerifyReport

_HEADINGS = ("graph", "check", "at", "found", "limit", "outcome")


def write_page(path: Path, report: VerifyReport) -> None:
    """Write the page, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(page(report), encoding="utf-8")


def page(report: VerifyReport) -> str:
    """The page as HTML: a table of all checks, and for those that failed every tensor that is off."""
    title = f"Verification of {Path(report.bundle).name}"
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    rows = [tag("tr", *(tag("td", cell) for cell in _cells(check))) for check in report.checks]
    table = tag("table", tag("tr", *(tag("th", heading) for heading in _HEADINGS)), *rows)
    body = tag("body", tag("h1", title), _facts(report), tag("h2", "Checks"), table, *_failures(report))
    return f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n'


def _facts(report: VerifyReport) -> Markup:
    facts = {
        "made for": f"{report.target}, {report.precision}",
        "checkpoint": report.checkpoint,
        "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items()),
        "files": f"{len(report.files)}, every hash as the manifest says",
        "versions": ", ".join(f"{tool} {version}" for tool, version in report.tools.items()),
    }
    return tag("dl", *(element for name, fact in facts.items() for element in (tag("dt", name), tag("dd", fact))))


def _cells(check: Check) -> tuple[str, ...]:
    return (check.graph, check.kind, check.where, *check.finding(), check.outcome)


def _failures(report: VerifyReport) -> list[Markup]:
    failed = [check for check in report.checks if check.failed]
    if not failed:
        return []
    return [tag("h2", "Failures"), *(tag("pre", check.describe_failure()) for check in failed)]
