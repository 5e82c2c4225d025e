"""The rules of a valid run, in the order of the section Rules in `docs/verdicts.md`. To add one, write its
function, put it here, and give it a fixture that breaks it in tests/benchmarks/report/check/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from backends.base import UsageError
from benchmarks.report.check import fairness, figures, files, provenance
from benchmarks.report.check.evidence import Evidence
from benchmarks.report.check.findings import Finding, Note, Violation

Rule = Callable[[Evidence], Iterator[Finding]]
"""Looks at a run, and yields what it finds. Its name is the function's, and its docstring says the rule."""

RULES: tuple[Rule, ...] = (
    files.schema,
    files.cells,
    files.seeds,
    files.code,
    files.data,
    fairness.weights,
    fairness.batches,
    fairness.gate,
    fairness.settings,
    figures.accuracy,
    figures.numbers,
    figures.curve,
    figures.steady,
    figures.peak,
    provenance.environment,
    provenance.leak,
)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, and the rule that made it."""

    rule: str
    finding: Finding


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say of a run."""

    rules: int
    cells: int
    """Records that could be read."""
    failed: int
    """Of these, cells that failed."""
    judged: tuple[Judged, ...]
    """In the order of the rules."""

    @property
    def violations(self) -> list[tuple[str, Violation]]:
        """With the rule that each of them breaks."""
        return [(one.rule, one.finding) for one in self.judged if isinstance(one.finding, Violation)]

    @property
    def notes(self) -> list[tuple[str, Note]]:
        """With the rule that each of them is about."""
        return [(one.rule, one.finding) for one in self.judged if isinstance(one.finding, Note)]


def judge(run: Evidence, rules: Sequence[Rule] = RULES) -> Verdict:
    """Hold a run against the rules."""
    judged = tuple(Judged(rule=rule.__name__, finding=finding) for rule in rules for finding in rule(run))
    return Verdict(rules=len(rules), cells=len(run.records), failed=len(run.failed), judged=judged)


def named(names: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of these names, in their own order; all of them where none is named.

    Raises:
        UsageError: there is no such rule; names those there are.
    """
    there = [rule.__name__ for rule in RULES]
    for name in names:
        if name not in there:
            raise UsageError(f"--rule {name}: no such rule; there are: {', '.join(there)}")
    return tuple(rule for rule in RULES if not names or rule.__name__ in names)
