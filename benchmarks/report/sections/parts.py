"""Where an epoch's time goes, as a table and as what a plot of it shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Column, Plot, Table, filled, table_of
from benchmarks.report.labels import protocol_or_recipe, run_of
from benchmarks.report.sections.variants import Variant, head, variants

PLOT = "plots/parts.svg"
SEGMENTS = ("wait", "transfer", "forward", "backward", "update", "beside")
"""What follows upon each other, and adds up to an epoch."""

READING = """\
- **Parts of an epoch** are milliseconds per image; **wait** is the share of an epoch spent waiting for input.
  **Decode** and **augment** are the work of one thread, beforehand or beside the steps, and no part of the
  sum. **Transfer**, **forward**, **backward** and **update** are what each adds to a step. **Beside** is
  what work on coming batches takes from the steps: its share of the cores. **Epoch** is a stretch of real
  training, and **explained** the share of it that wait, transfer, forward, backward, update and beside add
  up to."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One variant's epoch. Milliseconds per image."""

    label: str
    segments: tuple[float, ...]
    """As many as `SEGMENTS`."""
    epoch: float
    """As measured, and not as the segments add up."""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Bars that are compared with each other."""

    title: str
    bars: tuple[Bar, ...]


def blocks(records: Sequence[Record]) -> tuple[Block, ...]:
    """The table and the plot; none where the parts were not measured."""
    rows = measured(records)
    if not rows:
        return ()
    shown = (
        "Stacked bars, one for each variant of each backend: milliseconds of an image's training that go to"
        " waiting, transfer, forward, backward, update and work beside it; a mark shows the epoch as measured"
    )
    return "Milliseconds per image:", parts_table(rows), Plot(path=PLOT, text=shown)


def measured(records: Iterable[Record]) -> list[Variant]:
    """The variants of which the parts are known."""
    return [row for row in variants(records) if _milliseconds("epoch", row) is not None]


def parts_table(rows: Sequence[Variant]) -> Table:
    """One row for each variant."""
    columns: list[Column[Variant]] = [
        Column("decode", partial(_text, "decode"), number=True),
        Column("augment", partial(_text, "augment"), number=True),
        Column("wait", partial(_percent, "wait"), number=True),
        *(
            Column(name, partial(_text, name), number=True)
            for name in ("transfer", "forward", "backward", "update", "beside", "epoch")
        ),
        Column("explained", partial(_percent, "explained"), number=True),
    ]
    return table_of(
        "Milliseconds per image, by part of an epoch", rows, [*head(rows), *filled(rows, columns)]
    )


def panels(records: Iterable[Record]) -> list[Panel]:
    """What the plot shows: a panel for each protocol, network and image size."""
    found = []
    for title, rows in groupby(measured(records), key=_title):
        bars = []
        for row in rows:
            epoch, wait = _milliseconds("epoch", row), _share("wait", row)
            assert epoch is not None and wait is not None
            stages = (_milliseconds(name, row) or 0.0 for name in SEGMENTS[1:])
            bars.append(Bar(label=row.in_words(), segments=(wait * epoch, *stages), epoch=epoch))
        found.append(Panel(title=title, bars=tuple(bars)))
    return found


# --- How ------------------------------------------------------------------------------------------


def _title(row: Variant) -> str:
    cell, record = row.cell, row.cells[0].record
    said = [run_of(record), f"{cell.track} {cell.architecture}", protocol_or_recipe(record)]
    return ", ".join(filter(None, (*said, f"{row.image_size} px")))


def _share(name: str, row: Variant) -> float | None:
    return row.median(lambda throughput: getattr(throughput.parts, name))


def _milliseconds(name: str, row: Variant) -> float | None:
    seconds = _share(name, row)
    return None if seconds is None else 1000 * seconds


def _text(name: str, row: Variant) -> str:
    milliseconds = _milliseconds(name, row)
    return "" if milliseconds is None else f"{milliseconds:.3f}"


def _percent(name: str, row: Variant) -> str:
    share = _share(name, row)
    return "" if share is None else f"{100 * share:.1f} %"
