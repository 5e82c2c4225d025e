"""The report of one run as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.record import Curves, Record
from benchmarks.report import curves, latency, parts, protocols, speed
from benchmarks.report.labels import canonical, place, summary
from benchmarks.report.tables import (
    comparisons,
    conditions,
    environment_table,
    equality,
    failures_table,
    first_epochs_table,
    parity_table,
    results_table,
)

TRACKS = {
    "matched": "Matched: one network, the same weights and the same bytes in every framework",
    "native": "Native: each framework with its own network and idioms",
}


def report(records: Sequence[Record], measured: Sequence[Curves] = (), *, run: str) -> str:
    """The whole report of one run as Markdown; the plots that it shows are those of `illustrations.draw`."""
    if not records and not measured:
        return f"# Run {run}\n\nNo records yet.\n"
    sections = [f"# Run {run}"]
    if records:
        sections.append(conditions(records))
    for track in TRACKS:
        sections += _track(track, [record for record in records if record.cell.track == track])
    explained = [READING]
    for title, section, reading in (
        ("Speed", speed.section(records), speed.reading(records)),
        ("Parts of an epoch", parts.section(records), parts.READING),
        ("Latency and batch size", latency.section(records), latency.READING),
        ("Curves", curves.section(measured), curves.READING),
    ):
        if section:
            sections += [f"## {title}", section]
            explained.append(reading)
    documented = [record for record in records if protocols.is_documented(record)]
    if documented:
        sections += [
            "## The documents' figures and ours",
            protocols.protocols_table(documented),
            protocols.claims(records),
        ]
    failures = [record for record in records if record.error is not None]
    if failures:
        sections += ["## Failed cells", failures_table(failures)]
    if all(device == "cpu" for device in _devices(records, measured)):
        explained.append(NO_GPU)
    sections += ["## How to read this", "\n".join(explained)]
    if records:
        sections += ["## Environment", environment_table(records)]
    return "\n\n".join(filter(None, sections)) + "\n"


READING = """\
- **Test accuracy** is the share of test images classified rightly after the last epoch, or after the one that
  was best on a validation set, with Wilson's 95 % interval over those images. It says nothing of how another
  seed would have done. Whether two rows differ takes a paired test, which this report makes only of what a
  document claims.
- *Native* rows: each framework with its own architecture, preprocessing and idioms. A difference between rows
  is a difference between networks as much as between frameworks.
- *Matched* rows: one architecture, one set of initial weights, the same bytes in every batch, one definition
  of loss, decay, momentum and batch norm. No cell is timed before its backend has computed what the reference
  computes; errors are relative to a tensor's largest value.
- **Train** and **inference** images/s come from the median of synchronised steps on a batch already in host
  memory; "~" marks a rate whose steps had not become steady when the time was up. Where a head is trained on
  stored features, **train** counts rows of features, and **inference** is the whole network's on images.
- **Epoch** is what a user waits for, input pipeline included: the median of the epochs after the first.
- Cells ran one after the other: speeds are for orientation, and no framework is called faster here.
- **Memory** is the peak resident set of the cell's process, framework included."""

NO_GPU = """\
- Every figure here is a processor's: this run has measured nothing on a GPU. The README has the commands."""


def _track(track: str, records: Sequence[Record]) -> list[str]:
    """What came of one track's cells, protocol by protocol, and how equal their beginnings were."""
    if not records:
        return []
    sections = [f"## {TRACKS[track]}"]
    for protocol in sorted({record.cell.protocol for record in records}, key=place):
        chosen = [record for record in records if record.cell.protocol == protocol]
        usual = [record for record in chosen if canonical(record)]
        special = [record for record in chosen if not canonical(record)]
        if usual:
            sections += [f"### {protocol}", summary(usual), results_table(usual)]
        for recipe in sorted({record.cell.recipe for record in special}):
            of_recipe = [record for record in special if record.cell.recipe == recipe]
            sections += [f"### {recipe} ({protocol})", summary(of_recipe), results_table(of_recipe)]
    if any(record.gate for record in records):
        sections += ["### Equality", equality(records), parity_table(records)]
    if comparisons(records):
        sections += ["Mean training loss of the first epoch:", first_epochs_table(records)]
    return sections


def _devices(records: Sequence[Record], measured: Sequence[Curves]) -> set[str]:
    return {record.cell.device for record in records} | {one.device for one in measured}
