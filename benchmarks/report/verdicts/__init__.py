"""What the records of a run say, in words and with evidence."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Headline, Section
from benchmarks.report.groups import groups
from benchmarks.report.labels import is_scored
from benchmarks.report.verdicts import accuracy, cost, disagreement, headlines, speed
from benchmarks.report.verdicts.disagreement import Files
from benchmarks.report.verdicts.words import Choices


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, and what it rests on."""

    headlines: tuple[Headline, ...]
    sections: tuple[Section, ...]


def findings(records: Sequence[Record], choices: Choices, files: Files) -> Findings:
    """Test everything that the records allow.

    Args:
        files: names of the test images; those of other data sets are called by their number.
    """
    found = groups(records)
    scored = [group for group in found if is_scored(group.cell)]
    accuracies = accuracy.families(scored, choices.margin)
    speeds = speed.families(found, choices.speed_margin)
    reached = cost.reached(scored, choices)
    sections = (
        accuracy.section(scored, accuracies),
        speed.section(speeds),
        cost.section(reached),
        disagreement.section(scored, files),
    )
    return Findings(
        headlines=headlines.headlines(records, found, accuracies, speeds, reached),
        sections=tuple(section for section in sections if section),
    )
