"""Whether a run is valid, in a sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.report.check import evidence, rules


def sentence(folder: Path) -> str:
    """What `check` says of a run."""
    verdict = rules.judge(evidence.gather(folder))
    if not verdict.violations:
        return f"run {folder.name} was made by the rules: `check` found none of {verdict.rules} broken."
    broken = Counter(rule for rule, _ in verdict.violations)
    told = ", ".join(f"{rule} ({times})" for rule, times in broken.items())
    return f"run {folder.name} is not valid, `python -m benchmarks check` says why: {told}."
