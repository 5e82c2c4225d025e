"""What the report of records says, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.harness.record import Curves, Record
from benchmarks.report import verdicts
from benchmarks.report.document import Block, Document, Headline, Section
from benchmarks.report.labels import scored
from benchmarks.report.sections import (
    accuracy,
    curves,
    environment,
    equality,
    glossary,
    latency,
    learning,
    parts,
    protocols,
    rates,
    results,
    speed,
)
from benchmarks.report.sources import Sources
from benchmarks.report.verdicts import glance
from benchmarks.report.verdicts.words import Choices

TRACKS = {name: f"{name.capitalize()}: {meaning}" for name, meaning in glossary.TRACKS.items()}
"""Titles."""
ORDER = (
    "Failed cells",
    "Accuracy",
    "Learning curves",
    "Speed ratios",
    "Speed",
    "Time and cost to accuracy",
    "Parts of an epoch",
    "Latency and batch size",
    "Curves",
    *TRACKS.values(),
    "The documents' figures and ours",
    "How to read this",
    "Environment",
)
"""Of the sections: first what answers the questions, then what it rests on."""


def document(sources: Sources, *, title: str, choices: Choices, validity: Sequence[str] = ()) -> Document:
    """The whole report; the plots that it shows are those of `illustrations.draw`.

    Args:
        validity: what `check` says of each run, in a sentence.
    """
    records, measured = sources.records, sources.curves
    if not records and not measured:
        return Document(title=title, blocks=("No records yet.",))
    found = verdicts.findings(records, choices, sources.images)
    failed = [record for record in records if record.error is not None]
    told = scored(records)
    documented = [record for record in told if protocols.is_documented(record)]
    explained = [READING]
    subjects = []
    for subject, reading in (
        (Section("Learning curves", learning.curves(told)), learning.READING),
        (Section("Speed", (*rates.blocks(records), *speed.blocks(records))), speed.reading(records)),
        (Section("Time and cost to accuracy", learning.times(told)), learning.READING_TIMES),
        (Section("Parts of an epoch", parts.blocks(records)), parts.READING),
        (Section("Latency and batch size", latency.blocks(records)), latency.READING),
        (Section("Curves", (), curves.sections(measured)), curves.READING),
    ):
        if subject:
            subjects.append(subject)
            explained.append(reading)
    if all(device == "cpu" for device in _devices(records, measured)):
        explained.append(NO_GPU)
    sections = (
        Section("Failed cells", (results.failures_table(failed),) if failed else ()),
        Section("Accuracy", accuracy.blocks(told)),
        *found.sections,
        *(_track(name, [record for record in records if record.cell.track == name]) for name in TRACKS),
        *subjects,
        Section(
            "The documents' figures and ours",
            (protocols.protocols_table(documented), protocols.claims(records, choices)) if documented else (),
        ),
        Section("How to read this", ("\n".join(explained),)),
        Section("Environment", (environment.environment_table(records),) if records else ()),
    )
    shared: tuple[Block, ...] = (results.conditions(records), *glance.blocks(records)) if records else ()
    return Document(
        title=title,
        words=glossary.words(records),
        headlines=(*found.headlines, *([Headline("Validity", tuple(validity))] if validity else [])),
        blocks=shared,
        sections=_gathered(sections),
    )


READING = """\
- **At the top** a row is a backend with a protocol. Seconds of training are the median seed's, without
  evaluation; images/s the geometric mean of the seeds whose timing was sound, over whole epochs, input
  included.
- **Test accuracy** is the share of test images classified rightly after the last epoch, or after the one that
  was best on a validation set. A mean over seeds has Student's 95 % interval: where the mean over all
  seeds lies, on these images. One seed has Wilson's: what other images would have given, with this seed.
  Whether two rows differ takes a paired test, and its verdict.
- **Verdicts** are three, each from tests on the same images or in the same sitting, corrected for all that
  its table compares (Holm). *A higher*: a difference was shown (p < .05). *Equivalent within m*: it was shown
  to be no larger than m, by two one-sided tests. *No difference shown (could have shown d)*: neither was; a
  measured difference of d or more would have been shown, whatever the table's other tests came to. An
  interval is of one comparison alone, so that it may exclude "equal" where the corrected verdict does not.
- *Native* rows: each framework with its own architecture, preprocessing and idioms. A difference between rows
  is a difference between networks as much as between frameworks.
- *Matched* rows: one architecture, one set of initial weights, the same bytes in every batch, one definition
  of loss, decay, momentum and batch norm. No cell is timed before its backend has computed what the reference
  computes; errors are relative to a tensor's largest value.
- **Train** and **inference** images/s come from the median of synchronised steps on a batch already in host
  memory; "~" marks a rate whose steps had not become steady when the time was up. Where a head is trained on
  stored features, **train** counts rows of features, and **inference** is the whole network's on images.
- **Epoch** is what a user waits for, input pipeline included: the median of the epochs after the first.
- A framework is called faster only where the cells took turns, as `python -m benchmarks run` has them do, and
  by a test; other speeds are for orientation.
- **Memory** is the peak resident set of the cell's process, framework included."""

NO_GPU = """\
- Every figure here is a processor's: this run has measured nothing on a GPU. The README has the commands."""


# --- How ------------------------------------------------------------------------------------------


def _gathered(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Those that say something, in `ORDER`; what several say under one title stands together."""
    found: dict[str, Section] = {}
    for section in filter(None, sections):
        before = found.get(section.title, Section(section.title))
        found[section.title] = Section(
            section.title, (*before.blocks, *section.blocks), (*before.sections, *section.sections)
        )
    return tuple(sorted(found.values(), key=lambda section: _rank(section.title)))


def _rank(title: str) -> int:
    """What is in no order stands behind what answers the questions, and before the tracks."""
    return ORDER.index(title) if title in ORDER else ORDER.index(TRACKS["matched"])


def _track(name: str, records: Sequence[Record]) -> Section:
    """What came of one track's cells, protocol by protocol, and how equal their beginnings were."""
    if not records:
        return Section(TRACKS[name])
    return Section(TRACKS[name], (), (*results.by_protocol(records), equality.section(records)))


def _devices(records: Sequence[Record], measured: Sequence[Curves]) -> set[str]:
    return {record.cell.device for record in records} | {one.device for one in measured}
