"""What came of the tests of each backend, gathered as they end."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from jukebox_deploy.benchmarks.results import Agreement, BackendChecks
from jukebox_deploy.jobs.verification.report import Outcome, VerifyReport

AGREEMENT = "agreement"
"""Property of a test: an `Agreement` as plain data."""


def agreement_of(case: str, report: VerifyReport) -> list[Agreement]:
    """The numbers of a verification, those of checks that failed among them."""
    return [
        Agreement(
            case,
            check.graph,
            str(check.kind),
            check.measure,
            check.value if math.isfinite(check.value) else None,
            check.limit,
        )
        for check in report.checks
        if check.outcome is not Outcome.NOT_RUN
    ]


@dataclass
class Outcomes:
    """By the name of a backend, or of the benchmark."""

    gpu: str = ""
    passed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # the tests
    left_out: dict[str, str] = field(default_factory=dict)  # why
    agreement: dict[str, list[Agreement]] = field(default_factory=lambda: defaultdict(list))
    under_way: tuple[str, str] | None = None  # the backend and the test that has begun

    def begin(self, backend: str, nodeid: str) -> None:
        """A test has begun, which may take the process with it."""
        self.under_way = (backend, nodeid.rpartition("::")[2])

    def note(self, backend: str, report: pytest.TestReport) -> None:
        """Take over a report; a test has several, of which one counts."""
        self.under_way = None
        if report.when == "call":
            numbers = (value for name, value in report.user_properties if name == AGREEMENT)
            self.agreement[backend] += [Agreement(**number) for number in numbers if isinstance(number, dict)]
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.left_out[backend] = reason.removeprefix("Skipped: ")
        elif report.failed:
            self.failed[backend].append(f"{report.nodeid.rpartition('::')[2]}: {_last_line(report)}")
        elif report.when == "call":
            self.passed[backend] += 1

    def checks(self) -> tuple[BackendChecks, ...]:
        """All backends, in the order in which they were tried."""
        failed = {name: list(lines) for name, lines in self.failed.items()}
        if self.under_way is not None:
            backend, test = self.under_way
            failed.setdefault(backend, []).append(f"{test}: the process ended in this test")
        names = dict.fromkeys((*self.passed, *failed, *self.left_out))
        return tuple(
            BackendChecks(
                name,
                self.passed[name],
                tuple(failed.get(name, ())),
                self.left_out.get(name, ""),
                tuple(self.agreement[name]),
            )
            for name in names
        )

    def lines(self) -> list[str]:
        """A table for people."""
        if not self.gpu:
            reasons = dict.fromkeys(self.left_out.values())
            return [f"not run, no backend on a GPU: {reason}" for reason in reasons]
        rows = [(c.backend, _words(c)) for c in self.checks()]
        width = max((len(name) for name, _ in rows), default=0)
        return [f"on {self.gpu}:", *(f"  {name:<{width}}  {words}" for name, words in rows)]


def _words(checks: BackendChecks) -> str:
    if checks.left_out and not checks.passed and not checks.failed:
        return f"not run: {checks.left_out}"
    failed = "".join(f"\n      {line}" for line in checks.failed)
    some = f"; not all were run: {checks.left_out}" if checks.left_out else ""
    return f"{checks.passed} passed, {len(checks.failed)} failed{some}{failed}"


def _last_line(report: pytest.TestReport) -> str:
    """The error in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).strip().splitlines()[0][:200]
