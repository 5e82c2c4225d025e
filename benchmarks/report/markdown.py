"""The report of one run as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.record import Record
from benchmarks.report import protocols
from benchmarks.report.tables import (
    canonical,
    comparisons,
    conditions,
    environment_table,
    equality,
    failures_table,
    first_epochs_table,
    parity_table,
    place,
    results_table,
    summary,
)

TRACKS = {
    "matched": "Matched: one network, the same weights and the same bytes in every framework",
    "native": "Native: each framework with its own network and idioms",
}


def report(records: Sequence[Record], *, run: str) -> str:
    """The whole report of one run as Markdown."""
    if not records:
        return f"# Run {run}\n\nNo records yet.\n"
    sections = [f"# Run {run}", conditions(records)]
    for track, title in TRACKS.items():
        of_track = [record for record in records if record.cell.track == track]
        if of_track:
            sections.append(f"## {title}")
        for protocol in sorted({record.cell.protocol for record in of_track}, key=place):
            chosen = [record for record in of_track if record.cell.protocol == protocol]
            usual = [record for record in chosen if canonical(record)]
            special = [record for record in chosen if not canonical(record)]
            if usual:
                sections += [f"### {protocol}", summary(usual), results_table(usual)]
            for recipe in sorted({record.cell.recipe for record in special}):
                of_recipe = [record for record in special if record.cell.recipe == recipe]
                sections += [f"### {recipe} ({protocol})", summary(of_recipe), results_table(of_recipe)]
        if any(record.gate for record in of_track):
            sections += ["### Equality", equality(of_track), parity_table(of_track)]
        if comparisons(of_track):
            sections += ["Mean training loss of the first epoch:", first_epochs_table(of_track)]
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
    sections += ["## How to read this", READING, "## Environment", environment_table(records)]
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
- Cells ran one after the other, not interleaved: speeds are for orientation, and no framework is called
  faster here.
- **Memory** is the peak resident set of the cell's process, framework included."""
